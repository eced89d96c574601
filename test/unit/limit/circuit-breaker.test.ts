import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { breakerResources, CALM_MS, CircuitBreaker } from '../../../src/limit/circuit-breaker.ts';
import type { CircuitBreaker as Bounds } from '../../../src/model/policy.ts';

let now = 0;
let bounds: Bounds | undefined;
let workers = 1;
let told: string[] = [];

const make = () =>
  new CircuitBreaker({
    bounds: () => bounds,
    workers: () => workers,
    now: () => now,
    onTransition: (resource, from, to) => told.push(`${resource} ${from} → ${to}`),
    onRefused: (resource) => told.push(`${resource} refused`),
  });

beforeEach(() => {
  now = 1000;
  bounds = { requests: 2 };
  workers = 1;
  told = [];
});

describe('circuit breaker', () => {
  test('opens with the first that is one too many, closes when it is calm', () => {
    const breaker = make();
    expect([1, 2, 3, 4].map(() => breaker.tryAcquire('requests'))).toEqual([true, true, false, false]);
    expect(told).toEqual(['requests refused', 'requests closed → open', 'requests refused']);
    breaker.release('requests');
    expect(breaker.tryAcquire('requests')).toBe(true);
    expect(breaker.state('requests')).toBe('open');
    breaker.release('requests');
    now += CALM_MS;
    expect(breaker.tryAcquire('requests')).toBe(true);
    expect(breaker.state('requests')).toBe('closed');
    expect(told.at(-1)).toBe('requests open → closed');
  });

  test('closes without a call, too', () => {
    const breaker = make();
    for (let i = 0; i < 3; i++) breaker.tryAcquire('requests');
    now += CALM_MS - 1;
    breaker.calm();
    expect(breaker.state('requests')).toBe('open');
    now++;
    breaker.calm();
    expect(breaker.state('requests')).toBe('closed');
  });

  test('resources do not know of each other; without a bound there is none', () => {
    const breaker = make();
    for (let i = 0; i < 100; i++) expect(breaker.tryAcquire('connections')).toBe(true);
    expect(breaker.tryAcquire('requests')).toBe(true);
  });

  test('a bound of none lets none through', () => {
    bounds = { retries: 0 };
    workers = 4;
    expect(make().tryAcquire('retries')).toBe(false);
  });

  test('workers share a bound, and each may have one', () => {
    bounds = { requests: 10, retries: 1 };
    workers = 4;
    const breaker = make();
    expect([1, 2, 3, 4].map(() => breaker.tryAcquire('requests'))).toEqual([true, true, true, false]);
    expect(breaker.tryAcquire('retries')).toBe(true);
    expect(breaker.tryAcquire('retries')).toBe(false);
  });

  test('other bounds count at once; what is held is given back all the same', () => {
    const breaker = make();
    breaker.tryAcquire('requests');
    breaker.tryAcquire('requests');
    bounds = undefined;
    expect(breaker.tryAcquire('requests')).toBe(true);
    bounds = { requests: 1 };
    for (let i = 0; i < 3; i++) breaker.release('requests');
    expect(breaker.tryAcquire('requests')).toBe(true);
    expect(breaker.tryAcquire('requests')).toBe(false);
    expect(() => make().release('pending')).toThrow('no pending');
  });

  test('holds never more than its bound, and says every change once', () => {
    const step = fc.record({
      resource: fc.constantFrom(...breakerResources),
      take: fc.boolean(),
      pause: fc.nat({ max: 2 * CALM_MS }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        bounds = { connections: 1, pending: 2, requests: 3, retries: 1 };
        told = [];
        const breaker = make();
        for (const { resource, take, pause } of steps) {
          now += pause;
          if (take) breaker.tryAcquire(resource);
          else if (breaker.active(resource) > 0) breaker.release(resource);
          expect(breaker.active(resource)).toBeLessThanOrEqual(bounds[resource]!);
        }
        for (const resource of breakerResources) {
          const changes = told.filter((line) => line.startsWith(`${resource} `) && line.includes('→'));
          expect(changes).toEqual(
            changes.map((_, i) => `${resource} ${i % 2 === 0 ? 'closed → open' : 'open → closed'}`),
          );
          expect(breaker.state(resource)).toBe(changes.length % 2 === 0 ? 'closed' : 'open');
        }
      }),
    );
  });
});
