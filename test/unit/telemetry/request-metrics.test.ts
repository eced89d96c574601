import { describe, expect, it } from 'vitest';
import { connectionPaths, endReasons } from '../../../src/model/connection.ts';
import { errorCodes } from '../../../src/model/errors.ts';
import type { RequestRecord } from '../../../src/model/request.ts';
import type { ServiceName } from '../../../src/model/service.ts';
import { Counters } from '../../../src/telemetry/counters.ts';
import { metrics } from '../../../src/telemetry/definitions.ts';
import { MOST_LABEL_VALUES } from '../../../src/telemetry/label-caps.ts';
import { MetricsRegistry } from '../../../src/telemetry/metrics-registry.ts';
import { RequestMetrics } from '../../../src/telemetry/request-metrics.ts';
import { sampleRequest } from './sample-request.ts';

/** The metrics page after these requests. */
async function pageOf(changes: readonly Partial<RequestRecord>[]): Promise<string> {
  const counters = new Counters();
  const requests = new RequestMetrics(counters);
  for (const change of changes) {
    requests.started();
    requests.ended({ ...sampleRequest, ...change });
  }
  const registry = new MetricsRegistry();
  registry.merge('worker-0', counters.drain());
  return registry.text();
}

describe('request metrics', () => {
  it('count what a record says', async () => {
    const refused = { service: undefined, path: 'none', status: 400, reason: 'line-end' } as const;
    const page = await pageOf([
      {},
      { reused: false },
      { status: 503, path: 'none', reason: 'no-instance', reused: false },
      { status: 502, reason: 'status-line' },
      { status: 504, reason: 'request-timeout' },
      refused,
      refused,
    ]);
    const of = (status: string, path: string, reason: string, service = 'payments') =>
      `mesh_node_requests_total{service="${service}",status_class="${status}",path="${path}",reason="${reason}"}`;
    expect(page).toContain(`${of('2xx', 'tunnel', 'done')} 2\n`);
    expect(page).toContain(`${of('5xx', 'none', 'no-instance')} 1\n`);
    expect(page).toContain(`${of('5xx', 'tunnel', 'protocol')} 1\n`);
    expect(page).toContain(`${of('5xx', 'tunnel', 'request-timeout')} 1\n`);
    expect(page).toContain(`${of('4xx', 'none', 'protocol', 'none')} 2\n`);
    expect(page).toContain('mesh_node_request_refusals_total{rule="status-line"} 1\n');
    expect(page).toContain('mesh_node_request_refusals_total{rule="line-end"} 2\n');
    expect(page).not.toContain('rule="done"');
    expect(page).not.toContain('rule="no-instance"');
  });

  it('say how many went on a channel that was used before; those that went nowhere are neither', async () => {
    const page = await pageOf([{}, {}, { reused: false }, { path: 'none', reused: false, status: 503 }]);
    expect(page).toContain('mesh_node_request_channels_total{service="payments",channel="reused"} 2\n');
    expect(page).toContain('mesh_node_request_channels_total{service="payments",channel="new"} 1\n');
  });

  it.each([
    [0, 'none'],
    [101, '1xx'],
    [204, '2xx'],
    [304, '3xx'],
    [499, '4xx'],
    [599, '5xx'],
    [600, 'other'],
    [999, 'other'],
  ])('put status %i into %s, with how long it took', async (status, statusClass) => {
    const page = await pageOf([{ status, durationMs: 20 }]);
    const labels = `service="payments",status_class="${statusClass}"`;
    expect(page).toContain(`mesh_node_requests_total{${labels},path="tunnel",reason="done"} 1\n`);
    expect(page).toContain(`mesh_node_request_duration_seconds_bucket{${labels},le="0.01"} 0\n`);
    expect(page).toContain(`mesh_node_request_duration_seconds_bucket{${labels},le="0.025"} 1\n`);
    expect(page).toContain(`mesh_node_request_duration_seconds_sum{${labels}} 0.02\n`);
  });

  it('know how many are under way', () => {
    const counters = new Counters();
    const requests = new RequestMetrics(counters);
    requests.started();
    requests.started();
    requests.ended(sampleRequest);
    const active = counters.drain().find(([name]) => name === metrics.requestsActive.name);
    expect(active).toEqual([metrics.requestsActive.name, [], [1]]);
  });

  it('stay bounded whatever services are called and whatever callers and servers send', () => {
    const counters = new Counters();
    const requests = new RequestMetrics(counters);
    for (let i = 0; i < 20_000; i++) requests.ended({ ...sampleRequest, service: `s${i}` as ServiceName });
    const services = MOST_LABEL_VALUES + 1;
    expect(counters.drain(true)).toHaveLength(3 * services + 1);
    const rules = ['request-line', 'line-end', 'obs-fold', 'incomplete'] as const;
    for (const reason of [...endReasons, ...errorCodes, ...rules])
      for (const path of connectionPaths)
        for (let status = 0; status < 1000; status++)
          requests.ended({ ...sampleRequest, status, path, reason, reused: status % 2 === 0 });
    const classes = 7;
    const kinds = classes * connectionPaths.length * (endReasons.length + errorCodes.length);
    expect(counters.drain(true).length).toBeLessThanOrEqual(
      3 * services + 1 + kinds + classes + rules.length + 1,
    );
  });
});
