import type { Outlier } from '../model/policy.ts';

/** What was seen of one instance in an interval. */
export interface Seen {
  readonly requests: number;
  /** Of them, those that failed. */
  readonly failures: number;
  /** Of them, those whose delay is known; in milliseconds, together. */
  readonly timed: number;
  readonly milliseconds: number;
}

/** One that is to be set aside. */
export interface Found<T> {
  readonly who: T;
  readonly reason: 'success-rate' | 'latency';
}

/**
 * Compares instances with each other and finds those that are much worse; the worst first, each once. Those with too few
 * requests are neither judged nor compared with.
 */
export function findOutliers<T extends Seen>(
  seen: readonly T[],
  { successRate, latency }: Outlier,
): Found<T>[] {
  const found: Found<T>[] = [];
  if (successRate !== undefined) {
    for (const who of failing(seen, successRate)) found.push({ who, reason: 'success-rate' });
  }
  if (latency !== undefined) {
    for (const who of slow(seen, latency)) {
      if (!found.some((other) => other.who === who)) found.push({ who, reason: 'latency' });
    }
  }
  return found;
}

function failing<T extends Seen>(seen: readonly T[], rule: NonNullable<Outlier['successRate']>): T[] {
  const judged = seen.filter(({ requests }) => requests > 0 && requests >= rule.minimumRequests);
  if (judged.length < Math.max(rule.minimumInstances, 2)) return [];
  const rateOf = ({ requests, failures }: Seen): number => 1 - failures / requests;
  const mean = judged.reduce((sum, one) => sum + rateOf(one), 0) / judged.length;
  const variance = judged.reduce((sum, one) => sum + (rateOf(one) - mean) ** 2, 0) / judged.length;
  const least = mean - rule.factor * Math.sqrt(variance);
  return judged.filter((one) => rateOf(one) < least).sort((a, b) => rateOf(a) - rateOf(b));
}

function slow<T extends Seen>(seen: readonly T[], rule: NonNullable<Outlier['latency']>): T[] {
  const judged = seen.filter(({ timed }) => timed > 0 && timed >= rule.minimumRequests);
  if (judged.length < Math.max(rule.minimumInstances, 2)) return [];
  const meanOf = ({ timed, milliseconds }: Seen): number => milliseconds / timed;
  const means = judged.map(meanOf).sort((a, b) => a - b);
  const middle = means.length >> 1;
  const median = means.length % 2 === 1 ? means[middle]! : (means[middle - 1]! + means[middle]!) / 2;
  const most = Math.max(median * rule.factor, rule.atLeast);
  return judged.filter((one) => meanOf(one) > most).sort((a, b) => meanOf(b) - meanOf(a));
}
