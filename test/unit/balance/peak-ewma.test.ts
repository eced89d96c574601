import fc from 'fast-check';
import { expect, it } from 'vitest';
import { DEFAULT_LATENCY_MS, PeakEwma } from '../../../src/balance/peak-ewma.ts';

it('takes a rise at once and forgets it slowly', () => {
  const latency = new PeakEwma(DEFAULT_LATENCY_MS, 0);
  expect([latency.measured, latency.estimate]).toEqual([false, 30]);
  latency.answered(10, 0);
  expect([latency.measured, latency.estimate]).toEqual([true, 10]);
  latency.answered(1000, 100);
  expect(latency.estimate).toBe(1000);
  let now = 100;
  for (; now <= 10_100; now += 10) latency.answered(10, now);
  // One time constant later: 10 + 990/e.
  expect(latency.estimate).toBeGreaterThan(360);
  expect(latency.estimate).toBeLessThan(390);
  for (; now <= 60_100; now += 10) latency.answered(10, now);
  expect(latency.estimate).toBeLessThan(14);
});

it('falls while nobody waits, and not while somebody does', () => {
  const latency = new PeakEwma(30, 0);
  latency.answered(1000, 0);
  expect(latency.cost(10_000, true)).toBeCloseTo(1000 / Math.E);
  expect(latency.cost(10_000, false)).toBe(1000);
  expect(latency.cost(1e9, true)).toBeGreaterThan(0);
  latency.answered(10, 1e6);
  expect(latency.estimate).toBeCloseTo(10);
});

it('each failure doubles the cost, a success halves what they added, time takes it away', () => {
  const latency = new PeakEwma(30, 0);
  latency.answered(10, 0);
  latency.failed(0.1, 0);
  latency.failed(0.1, 0);
  expect(latency.cost(0, false)).toBe(40);
  expect(latency.estimate).toBe(10);
  latency.answered(10, 0);
  expect(latency.cost(0, false)).toBe(25);
  for (let i = 0; i < 100; i++) latency.failed(0.1, 0);
  expect(latency.cost(0, false)).toBe(10 * 1024);
  latency.answered(10, 100_000);
  expect(latency.cost(100_000, false)).toBeLessThan(11);
});

it('a slow failure says how long an answer takes', () => {
  const latency = new PeakEwma(30, 0);
  latency.answered(10, 0);
  latency.failed(5000, 0);
  expect(latency.estimate).toBe(5000);
  latency.restart(20, 0);
  expect([latency.measured, latency.cost(0, false)]).toEqual([false, 20]);
});

it('is a positive number whatever happens', () => {
  const event = fc.record({
    failed: fc.boolean(),
    milliseconds: fc.double({ min: 0, max: 1e7, noNaN: true }),
    pause: fc.double({ min: 0, max: 1e9, noNaN: true }),
  });
  fc.assert(
    fc.property(fc.array(event, { maxLength: 50 }), (events) => {
      const latency = new PeakEwma(30, 0);
      let now = 0;
      let most = 30;
      for (const { failed, milliseconds, pause } of events) {
        now += pause;
        most = Math.max(most, milliseconds);
        if (failed) latency.failed(milliseconds, now);
        else latency.answered(milliseconds, now);
        const costs = [latency.cost(now, true), latency.cost(now, false)];
        expect(costs.every((cost) => cost > 0 && cost <= most * 1024)).toBe(true);
      }
    }),
  );
});

it('one that is silent while somebody waits costs at least that time', () => {
  const latency = new PeakEwma(30, 0);
  latency.answered(5, 0);
  latency.asked(1000);
  latency.asked(1400);
  expect(latency.cost(1003, false)).toBeCloseTo(5);
  expect(latency.cost(1500, false)).toBe(500);
  // An answer came: the next one is waited for from then on.
  latency.left();
  latency.answered(6, 1500);
  expect(latency.cost(1503, false)).toBeLessThan(10);
  expect(latency.cost(2500, false)).toBe(1000);
  latency.left();
  expect(latency.cost(9999, true)).toBeLessThan(10);
});
