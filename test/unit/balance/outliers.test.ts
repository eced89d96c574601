import { describe, expect, it } from 'vitest';
import { findOutliers, type Seen } from '../../../src/balance/outliers.ts';
import { outlier } from './samples.ts';

/** Instances by requests and failures, or by their mean delay. */
function rates(...of: (readonly [requests: number, failures: number])[]): Seen[] {
  return of.map(([requests, failures]) => ({ requests, failures, timed: 0, milliseconds: 0 }));
}
function delays(...of: number[]): Seen[] {
  return of.map((mean) => ({ requests: 100, failures: 0, timed: 100, milliseconds: mean * 100 }));
}

describe('success rate', () => {
  const rule = outlier({ successRate: { minimumInstances: 5, minimumRequests: 50, factor: 1.9 } });
  const good = [100, 1] as const;

  it('finds who is below the mean by so many deviations', () => {
    const seen = rates(good, good, good, good, [100, 40]);
    expect(findOutliers(seen, rule)).toEqual([{ who: seen[4], reason: 'success-rate' }]);
  });

  it('finds nobody where all fail alike, or none does', () => {
    expect(findOutliers(rates(...Array.from({ length: 6 }, () => [100, 60] as const)), rule)).toEqual([]);
    expect(findOutliers(rates(...Array.from({ length: 6 }, () => [100, 0] as const)), rule)).toEqual([]);
  });

  it('judges nobody by too few requests, and nothing among too few instances', () => {
    expect(findOutliers(rates(good, good, good, good, good, [49, 49]), rule)).toEqual([]);
    expect(findOutliers(rates(good, good, good, [100, 90]), rule)).toEqual([]);
  });

  it('names the worst first', () => {
    const seen = rates([100, 60], ...Array.from({ length: 18 }, () => good), [100, 90]);
    expect(findOutliers(seen, rule).map(({ who }) => seen.indexOf(who))).toEqual([19, 0]);
  });
});

describe('latency', () => {
  const rule = outlier({ latency: { minimumInstances: 3, minimumRequests: 50, factor: 3, atLeast: 50 } });

  it('finds who is slower than so many medians, the slowest first', () => {
    const seen = delays(20, 21, 200, 22, 19, 300);
    expect(findOutliers(seen, rule).map(({ who, reason }) => [seen.indexOf(who), reason])).toEqual([
      [5, 'latency'],
      [2, 'latency'],
    ]);
  });

  it('lets what is fast enough be as much slower as it likes', () => {
    expect(findOutliers(delays(1, 1, 1, 49), rule)).toEqual([]);
    expect(findOutliers(delays(1, 1, 1, 51), rule)).toHaveLength(1);
  });

  it('takes the middle between two for the median', () => {
    expect(findOutliers(delays(20, 40, 60, 149), rule)).toEqual([]);
    expect(findOutliers(delays(20, 40, 60, 151), rule)).toHaveLength(1);
  });
});

it('names nobody twice', () => {
  const both = outlier({
    successRate: { minimumInstances: 3, minimumRequests: 1, factor: 1 },
    latency: { minimumInstances: 3, minimumRequests: 1, factor: 2, atLeast: 0 },
  });
  const bad = { requests: 10, failures: 9, timed: 10, milliseconds: 5000 };
  const well = { requests: 10, failures: 0, timed: 10, milliseconds: 100 };
  expect(findOutliers([well, well, { ...well }, bad], both)).toEqual([{ who: bad, reason: 'success-rate' }]);
});
