import { describe, expect, it } from 'vitest';
import { Balancer, type PickToken } from '../../../src/balance/balancer.ts';
import type { BalanceAlgorithm } from '../../../src/model/policy.ts';
import { balance, instances, locality, NONE, plainEjection, seeded, service } from './samples.ts';

/** One of eleven instances is slow: the situation of Linkerd's blog of 16 March 2016 (99.9 %, 99 % and 95 % there). */
const INSTANCES = 11;
const REQUESTS = 60_000;
const PER_SECOND = 1000;
const LIMIT_MS = 1000;

interface Answer {
  readonly at: number;
  readonly token: PickToken;
  readonly milliseconds: number;
  readonly status: number;
}

interface Simulated {
  /** Share of requests within {@link LIMIT_MS}. */
  readonly within: number;
  /** Share of requests that the odd instance got. */
  readonly odd: number;
  readonly failed: number;
}

/** Requests arrive by chance (Poisson); instance `i0` is the odd one. The clock is the events'. */
function simulate(
  algorithm: BalanceAlgorithm,
  odd: (random: () => number) => { milliseconds: number; status: number },
): Simulated {
  const random = seeded(42);
  const clock = { now: 0 };
  const balancer = new Balancer({
    locality,
    ejection: plainEjection,
    policy: () => ({ balance: balance({ algorithm }) }),
    now: () => clock.now,
    random: seeded(7),
  });
  const of = service(instances(INSTANCES));
  const waiting: Answer[] = [];
  let within = 0;
  let toOdd = 0;
  let failed = 0;
  const answerUntil = (time: number): void => {
    while (waiting.length > 0 && waiting[0]!.at <= time) {
      const { at, token, milliseconds, status } = waiting.shift()!;
      clock.now = at;
      token.answered(status, milliseconds);
      token.finished();
      if (milliseconds <= LIMIT_MS) within++;
      if (status >= 500) failed++;
    }
  };
  let arrival = 0;
  for (let i = 0; i < REQUESTS; i++) {
    arrival -= (Math.log(1 - random()) * 1000) / PER_SECOND;
    answerUntil(arrival);
    clock.now = arrival;
    const picked = balancer.pick(of, NONE)!;
    const isOdd = picked.id === 'i0';
    if (isOdd) toOdd++;
    const { milliseconds, status } = isOdd ? odd(random) : { milliseconds: 5 + 15 * random(), status: 200 };
    const answer = { at: arrival + milliseconds, token: balancer.started(of, picked), milliseconds, status };
    let place = waiting.length;
    while (place > 0 && waiting[place - 1]!.at > answer.at) place--;
    waiting.splice(place, 0, answer);
  }
  answerUntil(Number.POSITIVE_INFINITY);
  return { within: within / REQUESTS, odd: toOdd / REQUESTS, failed: failed / REQUESTS };
}

describe('one slow instance of eleven', () => {
  const slow = (random: () => number) => ({ milliseconds: 1100 + 400 * random(), status: 200 });

  it('peak EWMA: at least 99.9 % within a second; least requests and round robin beside it', () => {
    const within = (algorithm: BalanceAlgorithm): number => simulate(algorithm, slow).within;
    const shares = {
      'peak-ewma': within('peak-ewma'),
      'least-requests': within('least-requests'),
      'round-robin': within('round-robin'),
    };
    console.info(
      Object.entries(shares)
        .map(([algorithm, share]) => `${algorithm} ${(share * 100).toFixed(3)} %`)
        .join(', '),
    );
    expect(shares['peak-ewma']).toBeGreaterThanOrEqual(0.999);
    expect(shares['least-requests']).toBeGreaterThan(0.98);
    expect(shares['least-requests']).toBeLessThan(shares['peak-ewma']);
    expect(shares['round-robin']).toBeLessThan(0.92);
  });
});

describe('one of eleven fails fast', () => {
  it.each([503, 429])('attracts no load under peak EWMA: %d', (status) => {
    const fails = () => ({ milliseconds: 0.5, status });
    expect(simulate('peak-ewma', fails).odd).toBeLessThan(0.001);
    // Where only requests under way count, the one that has none gets more than its share.
    expect(simulate('least-requests', fails).odd).toBeGreaterThan(1 / INSTANCES);
  });
});
