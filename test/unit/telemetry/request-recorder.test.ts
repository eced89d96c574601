import { describe, expect, it } from 'vitest';
import type { RequestRecord } from '../../../src/model/request.ts';
import { Counters } from '../../../src/telemetry/counters.ts';
import { metrics } from '../../../src/telemetry/definitions.ts';
import { RequestMetrics } from '../../../src/telemetry/request-metrics.ts';
import { RequestRecorder } from '../../../src/telemetry/request-recorder.ts';
import { sampleRequest } from './sample-request.ts';

const records: readonly RequestRecord[] = [
  sampleRequest,
  { ...sampleRequest, id: '1.2', status: 404 },
  { ...sampleRequest, id: '1.3', status: 500 },
  { ...sampleRequest, id: '1.4', status: 200, reason: 'client-reset' },
  { ...sampleRequest, id: '1.5', status: 400, reason: 'line-end' },
];

describe('requests', () => {
  it.each([
    ['all', [sampleRequest.id, '1.2', '1.3', '1.4', '1.5']],
    ['failed', ['1.3', '1.4', '1.5']],
    ['off', []],
  ] as const)('to be logged: %s; counted are all of them', (logged, expected) => {
    const written: string[] = [];
    const counters = new Counters();
    const recorder = new RequestRecorder(
      new RequestMetrics(counters),
      { writeRequest: ({ id }) => written.push(id) },
      () => logged,
    );
    for (const record of records) {
      recorder.started();
      recorder.ended(record);
    }
    expect(written).toEqual(expected);
    let counted = 0;
    for (const [name, , [amount]] of counters.drain()) if (name === metrics.requests.name) counted += amount!;
    expect(counted).toBe(records.length);
  });

  it('are logged as the setting says when they end', () => {
    const written: string[] = [];
    let logged: 'all' | 'off' = 'off';
    const recorder = new RequestRecorder(
      new RequestMetrics(new Counters()),
      { writeRequest: ({ id }) => written.push(id) },
      () => logged,
    );
    recorder.ended(sampleRequest);
    logged = 'all';
    recorder.ended(sampleRequest);
    expect(written).toEqual([sampleRequest.id]);
  });

  it('have failed when they did not end in order; being sent elsewhere is no failure', () => {
    const written: (string | undefined)[] = [];
    const recorder = new RequestRecorder(
      new RequestMetrics(new Counters()),
      { writeRequest: ({ reason }) => written.push(reason) },
      () => 'failed',
    );
    for (const reason of ['done', 'redirect', 'request-timeout', 'rate-limit'] as const) {
      recorder.ended({ ...sampleRequest, reason });
    }
    expect(written).toEqual(['request-timeout', 'rate-limit']);
  });
});
