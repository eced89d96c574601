import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RetryBudget } from '../../../src/limit/retry-budget.ts';

const BUDGET = { percent: 20, perSecond: 10 };

describe('retry budget', () => {
  test('without requests: so many a second, saved for ten seconds', () => {
    const budget = new RetryBudget();
    let taken = 0;
    while (budget.tryRetry(50_000, BUDGET, 1)) taken++;
    expect(taken).toBe(100);
    expect(budget.tryRetry(59_999, BUDGET, 1)).toBe(false);
    expect(budget.tryRetry(60_000, BUDGET, 1)).toBe(true);
  });

  test('a share of the requests besides', () => {
    const budget = new RetryBudget();
    for (let i = 0; i < 1000; i++) budget.request(1000);
    let taken = 0;
    while (budget.tryRetry(1000, BUDGET, 1)) taken++;
    expect(taken).toBe(300);
  });

  test('workers share what a second brings', () => {
    const budget = new RetryBudget();
    let taken = 0;
    while (budget.tryRetry(1000, BUDGET, 4)) taken++;
    expect(taken).toBe(25);
  });

  test('nothing: never', () => {
    const budget = new RetryBudget();
    budget.request(1000);
    expect(budget.tryRetry(1000, { percent: 0, perSecond: 0 }, 1)).toBe(false);
  });

  test('any ten seconds of requests and retries stay within it', () => {
    const step = fc.record({
      pause: fc.nat({ max: 3000 }),
      requests: fc.nat({ max: 40 }),
      retries: fc.nat({ max: 60 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const budget = new RetryBudget();
        const events: { readonly at: number; readonly requests: number; retries: number }[] = [];
        let now = 12_345;
        for (const { pause, requests, retries } of steps) {
          now += pause;
          const event = { at: Math.floor(now / 1000), requests, retries: 0 };
          events.push(event);
          for (let i = 0; i < requests; i++) budget.request(now);
          for (let i = 0; i < retries; i++) {
            if (budget.tryRetry(now, BUDGET, 1)) event.retries++;
          }
          const recent = events.filter(({ at }) => at > event.at - 10);
          const sum = (of: 'requests' | 'retries') => recent.reduce((total, each) => total + each[of], 0);
          const allowed = Math.floor(sum('requests') * 0.2 + 100);
          // When it is taken: requests may be forgotten before retries that they allowed.
          if (event.retries > 0) expect(sum('retries')).toBeLessThanOrEqual(allowed);
          // And nothing is kept back: what was refused was over it.
          if (event.retries < retries) expect(sum('retries')).toBeGreaterThanOrEqual(allowed);
        }
      }),
    );
  });
});
