import { describe, expect, it } from 'vitest';
import type { Sample } from '../../../bench/measure/sample.ts';
import { summarize, table, verdicts } from '../../../bench/report.ts';
import type { Scenario } from '../../../bench/scenarios/scenario.ts';

const scenario: Scenario = {
  name: 'tunnel',
  title: 'test',
  role: 'pair',
  connections: [32],
  reference: 'haproxy',
  lives: 'rounds',
  measure: async () => ({}),
};
const series = (subject: string, samples: readonly Sample[]) => ({
  scenario,
  subject,
  connections: 32,
  samples,
});
const haproxy = series('haproxy', [
  { cpuUsPerRequest: 40, requestsPerSecond: 100, coreShare: 1 },
  { cpuUsPerRequest: 80, requestsPerSecond: 50, coreShare: 1 },
]);
const ours = series('mesh-node', [
  { cpuUsPerRequest: 20, requestsPerSecond: 200, coreShare: 1 },
  { cpuUsPerRequest: 44, requestsPerSecond: 60, coreShare: 1 },
]);

describe('summarize', () => {
  it('takes medians, and ratios round by round', () => {
    const [reference, result] = summarize([haproxy, ours]);
    expect(reference).toMatchObject({ cpuUsPerRequest: 60, rounds: 2, ratioToReference: {} });
    expect(result).toMatchObject({ subject: 'mesh-node', cpuUsPerRequest: 32, requestsPerSecond: 130 });
    expect(result?.ratioToReference.cpuUsPerRequest?.median).toBeCloseTo(0.525);
    expect(result?.ratioToReference.requestsPerSecond).toEqual({ median: 1.6, min: 1.2, max: 2 });
    expect(result?.ratioToReference.coreShare).toBeUndefined();
  });

  it('leaves out subjects of which nothing was measured', () => {
    expect(summarize([haproxy, series('direct', [{}, {}])]).map(({ subject }) => subject)).toEqual([
      'haproxy',
    ]);
  });
});

describe('table', () => {
  it('shows measured metrics only, with the ratio and its spread', () => {
    const text = table(summarize([haproxy, ours]));
    expect(text).toContain('CPU µs/req');
    expect(text).not.toContain('Gbit/s');
    expect(text).toMatch(/mesh-node\s+32\s+32\.0\s+0\.53× \(0\.50–0\.55\)/);
  });
});

describe('verdicts', () => {
  it('says of each goal that was measured whether it was reached', () => {
    const lines = (verdicts(summarize([haproxy, ours])) ?? '').split('\n');
    expect(lines).toHaveLength(3);
    expect(lines[1]).toMatch(/cpuUsPerRequest.*at most 0\.65 × haproxy.*reached$/);
    expect(lines[2]).toMatch(/requestsPerSecond.*at least 1\.40 × haproxy.*reached$/);
  });

  it('compares with the best of several where the goal says so', () => {
    const http = { ...scenario, name: 'http' };
    const of = (subject: string, microseconds: number) => ({
      ...series(subject, [{ cpuUsPerRequest: microseconds }]),
      scenario: http,
    });
    const judged = (...all: ReturnType<typeof of>[]) =>
      verdicts(summarize([of('mesh-node', 22), ...all])) ?? '';
    expect(judged(of('haproxy', 20), of('nginx', 25))).toMatch(/1\.15 × haproxy\s+1\.10×\s+reached$/);
    expect(judged(of('haproxy', 20), of('nginx', 18))).toMatch(/1\.15 × nginx\s+1\.22×\s+MISSED$/);
    expect(judged(of('haproxy', 20))).toMatch(/1\.15 × haproxy/);
  });

  it('is nothing without the reference or without our subject', () => {
    expect(verdicts(summarize([ours]))).toBeUndefined();
    expect(verdicts(summarize([haproxy]))).toBeUndefined();
  });
});
