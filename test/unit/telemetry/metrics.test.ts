import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { connectionDirections, connectionPaths, endReasons } from '../../../src/model/connection.ts';
import { errorCodes } from '../../../src/model/errors.ts';
import type { ServiceName } from '../../../src/model/service.ts';
import { ConnectionMetrics } from '../../../src/telemetry/connection-metrics.ts';
import { Counters } from '../../../src/telemetry/counters.ts';
import { type MetricDefinition, metrics } from '../../../src/telemetry/definitions.ts';
import { LabelCap, MOST_LABEL_VALUES } from '../../../src/telemetry/label-caps.ts';
import { MetricsRegistry } from '../../../src/telemetry/metrics-registry.ts';
import { sampleRecord } from './sample-record.ts';

const definitions = Object.values(metrics) as readonly MetricDefinition[];

/** Every metric with every label set to something. */
function fill(counters: Counters): void {
  for (const definition of definitions) {
    const labels = definition.labels.map((label) => `a-${label}`);
    if (definition.type === 'counter') counters.counter(definition, ...labels).add(2);
    else if (definition.type === 'gauge') counters.gauge(definition, ...labels).set(3);
    else counters.histogram(definition, ...labels).observe(0.003);
  }
}

describe('definitions', () => {
  it('have unique names of one form', () => {
    const names = definitions.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^mesh_node_[a-z_]+$/);
  });

  it('are clean under promtool check metrics', async () => {
    const counters = new Counters();
    fill(counters);
    const registry = new MetricsRegistry();
    registry.merge('worker-0', counters.drain());
    const text = await registry.text();
    for (const { name } of definitions) expect(text).toContain(`# TYPE ${name} `);
    const checked = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
    expect(checked.error).toBeUndefined();
    expect(`${checked.stdout}${checked.stderr}`).toBe('');
    expect(checked.status).toBe(0);
  });
});

describe('counters', () => {
  it('hand over what changed, once', () => {
    const counters = new Counters();
    const handle = counters.counter(metrics.connectRetries, 'orders');
    const gauge = counters.gauge(metrics.connectionsActive, 'inbound');
    expect(counters.drain()).toEqual([[metrics.connectionsActive.name, ['inbound'], [0]]]);
    handle.add();
    handle.add(2);
    gauge.add(5);
    gauge.add(-1);
    expect(counters.drain()).toEqual([
      [metrics.connectRetries.name, ['orders'], [3]],
      [metrics.connectionsActive.name, ['inbound'], [4]],
    ]);
    expect(counters.drain()).toEqual([]);
    expect(counters.drain(true)).toEqual([[metrics.connectionsActive.name, ['inbound'], [4]]]);
    expect(counters.counter(metrics.connectRetries, 'orders')).toBe(handle);
  });

  it('put a value into the first bucket that holds it', () => {
    const counters = new Counters();
    const handle = counters.histogram(metrics.tunnelRoundTrip);
    const bounds = metrics.tunnelRoundTrip.buckets;
    handle.observe(0);
    handle.observe(bounds[0]!);
    handle.observe(bounds[0]! * 1.01);
    handle.observe(1e9);
    const [, , numbers] = counters.drain()[0]!;
    expect(numbers).toHaveLength(bounds.length + 2);
    expect(numbers.slice(1, 3)).toEqual([2, 1]);
    expect(numbers.at(-1)).toBe(1);
  });

  it('bound labels that come from outside', () => {
    const cap = new LabelCap(2);
    expect(['a', 'b', 'c', 'a'].map((value) => cap.of(value))).toEqual(['a', 'b', 'other', 'a']);
    const counters = new Counters();
    for (let i = 0; i < 3 * MOST_LABEL_VALUES; i++) counters.counter(metrics.connectRetries, `s${i}`).add();
    const delta = counters.drain();
    expect(delta).toHaveLength(MOST_LABEL_VALUES + 1);
    expect(delta.at(-1)).toEqual([metrics.connectRetries.name, ['other'], [2 * MOST_LABEL_VALUES]]);
  });
});

describe('registry', () => {
  it('adds up counters and histograms, and gauges of the processes that live', async () => {
    const registry = new MetricsRegistry();
    for (const worker of ['worker-0', 'worker-1']) {
      const counters = new Counters();
      fill(counters);
      registry.merge(worker, counters.drain());
    }
    let text = await registry.text();
    expect(text).toContain('mesh_node_connect_retries_total{service="a-service"} 4\n');
    expect(text).toContain('mesh_node_connections_active{direction="a-direction"} 6\n');
    expect(text).toContain('mesh_node_tunnel_round_trip_seconds_bucket{le="0.0025"} 0\n');
    expect(text).toContain('mesh_node_tunnel_round_trip_seconds_bucket{le="0.005"} 2\n');
    expect(text).toContain('mesh_node_tunnel_round_trip_seconds_bucket{le="+Inf"} 2\n');
    expect(text).toContain('mesh_node_tunnel_round_trip_seconds_count 2\n');
    expect(text).toContain('mesh_node_tunnel_round_trip_seconds_sum 0.006\n');
    registry.forget('worker-1');
    text = await registry.text();
    expect(text).toContain('mesh_node_connections_active{direction="a-direction"} 3\n');
    expect(text).toContain('mesh_node_connect_retries_total{service="a-service"} 4\n');
  });

  it('leaves out what another version may send', async () => {
    const registry = new MetricsRegistry();
    const before = await registry.text();
    registry.merge('worker-0', [
      ['mesh_node_of_tomorrow_total', [], [1]],
      [metrics.connectRetries.name, [], [1]],
      [metrics.connectRetries.name, ['a', 'b'], [1]],
      [metrics.tunnelRoundTrip.name, [], [1, 2]],
    ]);
    expect(await registry.text()).toBe(before);
  });

  it('escapes label values', async () => {
    const registry = new MetricsRegistry();
    registry.merge('worker-0', [[metrics.connectRetries.name, ['a"b\nc\\'], [1]]]);
    expect(await registry.text()).toContain('{service="a\\"b\\nc\\\\"} 1\n');
  });
});

describe('connection metrics', () => {
  it('count what a record says', async () => {
    const counters = new Counters();
    const connections = new ConnectionMetrics(counters);
    connections.started('outbound');
    connections.started('outbound');
    connections.ended(sampleRecord);
    connections.ended({ ...sampleRecord, service: undefined, path: 'none', reason: 'denied' });
    connections.started('inbound');
    const registry = new MetricsRegistry();
    registry.merge('worker-0', counters.drain());
    const text = await registry.text();
    expect(text).toContain('{direction="outbound",service="payments",path="tunnel",reason="done"} 1');
    expect(text).toContain('{direction="outbound",service="none",path="none",reason="denied"} 1');
    expect(text).toContain('connections_active{direction="outbound"} 0');
    expect(text).toContain('connections_active{direction="inbound"} 1');
    expect(text).toContain('{direction="outbound",service="payments",flow="sent"} 1000');
    expect(text).toContain('{direction="outbound",service="payments",flow="received"} 2000');
  });

  it('stay bounded whatever the services are called', () => {
    const counters = new Counters();
    const connections = new ConnectionMetrics(counters);
    for (let i = 0; i < 20_000; i++) connections.ended({ ...sampleRecord, service: `s${i}` as ServiceName });
    const kinds =
      connectionDirections.length * connectionPaths.length * (endReasons.length + errorCodes.length);
    const series = counters.drain(true).length;
    expect(series).toBeLessThan(4 * MOST_LABEL_VALUES + kinds);
  });
});
