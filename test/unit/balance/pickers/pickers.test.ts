import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { buildPicker } from '../../../../src/balance/pickers/build.ts';
import { HashRing } from '../../../../src/balance/pickers/hash-ring.ts';
import type { Candidate, Picker } from '../../../../src/balance/pickers/picker.ts';
import { type BalanceAlgorithm, balanceAlgorithms } from '../../../../src/model/policy.ts';
import { candidates, chiSquare, instance, NONE, seeded, type TestCandidate, tally } from '../samples.ts';

function build(algorithm: BalanceAlgorithm, of: readonly Candidate[], seed = 1, now = () => 0): Picker {
  const ring = () => new HashRing(of.map((one) => one.instance));
  return buildPicker(of, { algorithm, boundedLoad: 125, ring, random: seeded(seed), now });
}

const even = Array.from({ length: 11 }, () => 100);

// One conformance suite for all of them.
describe.each(balanceAlgorithms)('%s', (algorithm) => {
  it('shares evenly among idle equals', () => {
    const of = candidates(even);
    expect(chiSquare(tally(build(algorithm, of), of, 22_000), even)).toBeLessThan(3);
  });

  it('finds the only one', () => {
    const of = candidates([100]);
    expect(build(algorithm, of).pick(NONE)).toBe(of[0]!.instance);
    expect(build(algorithm, of).pick(NONE, 'key')).toBe(of[0]!.instance);
  });

  it('never picks who is excluded, and always somebody else while there is one', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({ weight: fc.integer({ min: 1, max: 300 }), out: fc.boolean(), active: fc.nat(9) }),
          {
            minLength: 1,
            maxLength: 40,
          },
        ),
        fc.nat(),
        fc.option(fc.string(), { nil: undefined }),
        (given, seed, key) => {
          const of = candidates(given.map(({ weight }) => weight));
          for (const [i, { active }] of given.entries()) of[i]!.load.active = active;
          // Other objects for the same instances, as after a new snapshot.
          const exclude = new Set(of.filter((_, i) => given[i]!.out).map((one) => ({ ...one.instance })));
          const picker = build(algorithm, of, seed);
          for (let i = 0; i < 20; i++) {
            const picked = picker.pick(exclude, key);
            if (given.every(({ out }) => out)) expect(picked).toBeUndefined();
            else expect(given[of.findIndex((one) => one.instance === picked)]?.out).toBe(false);
          }
        },
      ),
      { numRuns: 200 },
    );
  });
});

/** Runs requests one after the other, each with so many under way beside it; answers how many each got. */
function run(picker: Picker, of: readonly TestCandidate[], requests: number, concurrency: number): number[] {
  const counts = of.map(() => 0);
  const random = seeded(7);
  const live: TestCandidate[] = [];
  for (let i = 0; i < requests; i++) {
    if (live.length >= concurrency) live.splice(Math.floor(random() * live.length), 1)[0]!.load.active--;
    const picked = picker.pick(NONE);
    const at = of.findIndex((one) => one.instance === picked);
    of[at]!.load.active++;
    live.push(of[at]!);
    counts[at]!++;
  }
  return counts;
}

describe.each(['round-robin', 'least-requests', 'peak-ewma', 'ring-hash'] as const)(
  'weights: %s',
  (algorithm) => {
    const weights = [300, 100, 50, 200, 100, 25, 100, 100, 200, 150];

    it('are held where nobody is busy', () => {
      const of = candidates(weights);
      expect(chiSquare(tally(build(algorithm, of), of, 30_000), weights)).toBeLessThan(3);
      const two = candidates([300, 100]);
      const [heavy] = tally(build(algorithm, two), two, 8000);
      expect(heavy! / 8000).toBeCloseTo(0.75, 1);
    });

    it('are held under load, nearly', () => {
      const of = candidates(weights);
      const counts = run(build(algorithm, of), of, 30_000, 60);
      const whole = weights.reduce((sum, weight) => sum + weight, 0);
      for (const [i, weight] of weights.entries()) {
        const share = counts[i]! / 30_000 / (weight / whole);
        expect(share).toBeGreaterThan(0.7);
        expect(share).toBeLessThan(1.4);
      }
    });
  },
);

describe('least requests', () => {
  it('leaves a busy one alone while there are others', () => {
    const of = candidates(even);
    of[3]!.load.active = 5;
    expect(tally(build('least-requests', of), of, 1000)[3]).toBe(0);
  });

  it('keeps the most active near the mean, as two choices do', () => {
    const of = candidates(Array.from({ length: 100 }, () => 100));
    const picker = build('least-requests', of);
    for (let i = 0; i < 10_000; i++) of[Number(picker.pick(NONE)!.id.slice(1))]!.load.active++;
    expect(Math.max(...of.map(({ load }) => load.active))).toBeLessThan(106);
    expect(Math.min(...of.map(({ load }) => load.active))).toBeGreaterThan(90);
  });
});

describe('peak EWMA', () => {
  it('gives a slow one nothing, and tries it again after a while', () => {
    const clock = { now: 0 };
    const of = candidates(even);
    const picker = build('peak-ewma', of, 1, () => clock.now);
    for (const [i, { load }] of of.entries()) load.latency.answered(i === 4 ? 1000 : 10, 0);
    expect(tally(picker, of, 2000)[4]).toBe(0);
    clock.now = 60_000;
    for (const [i, { load }] of of.entries()) if (i !== 4) load.latency.answered(10, clock.now);
    expect(tally(picker, of, 2000)[4]).toBeGreaterThan(0);
    // One request at a time: what is known of it holds as long as one waits.
    of[4]!.load.active = 1;
    expect(tally(picker, of, 2000)[4]).toBe(0);
  });

  it('gives one that fails fast nothing', () => {
    const of = candidates(even);
    const picker = build('peak-ewma', of);
    for (const { load } of of) load.latency.answered(10, 0);
    for (let i = 0; i < 3; i++) of[4]!.load.latency.failed(0.1, 0);
    expect(tally(picker, of, 2000)[4]).toBe(0);
  });

  it('prefers who is idle among equals', () => {
    const of = candidates(even);
    const picker = build('peak-ewma', of);
    for (const { load } of of) load.latency.answered(10, 0);
    of[4]!.load.active = 1;
    expect(tally(picker, of, 2000)[4]).toBe(0);
  });
});

it('weights of instances are those of the candidates, not of the catalogue', () => {
  // Slow start makes a candidate lighter than its instance.
  const of: Candidate[] = candidates([100, 100]).map((one, i) => (i === 0 ? { ...one, weight: 25 } : one));
  const [light] = tally(build('round-robin', of), of, 1000);
  expect(light! / 1000).toBeCloseTo(0.2, 2);
  expect(instance('x').weight).toBe(100);
});
