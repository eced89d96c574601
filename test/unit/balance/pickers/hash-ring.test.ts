import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hashText } from '../../../../src/balance/pickers/hash.ts';
import { HashRing } from '../../../../src/balance/pickers/hash-ring.ts';
import { RingHash } from '../../../../src/balance/pickers/ring-hash.ts';
import type { Instance } from '../../../../src/model/service.ts';
import { candidates, instance, NONE, seeded, type TestCandidate } from '../samples.ts';

const KEYS = Array.from({ length: 4000 }, (_, i) => `user-${i}`);

function picker(
  of: readonly TestCandidate[],
  change: { ring?: HashRing; bound?: number; seed?: number } = {},
) {
  const ring = change.ring ?? new HashRing(of.map((one) => one.instance));
  return new RingHash(ring, of, change.bound ?? 125, seeded(change.seed));
}

function owners(of: readonly TestCandidate[], ring?: HashRing): string[] {
  const ringHash = picker(of, ring === undefined ? {} : { ring });
  return KEYS.map((key) => ringHash.pick(NONE, key)!.id);
}

function moved(before: readonly string[], after: readonly string[]): number {
  return before.filter((id, i) => id !== after[i]).length / before.length;
}

describe('hash', () => {
  it('is MurmurHash3: known answers for bytes that are UTF-16 code units', () => {
    expect(hashText('')).toBe(0);
    expect(hashText('', 1)).toBe(0x514e28b7);
    expect(hashText('\uffff\uffff')).toBe(0x76293b50);
    expect(hashText('\u4321\u8765')).toBe(0xf55b516b);
    expect(hashText('\u4321\u8765', 0x5082edee)).toBe(0x2362f9de);
    expect(hashText('\u4321')).toBe(0xa0f7b07a);
  });

  it('reads a bounded part of a long text', () => {
    expect(hashText('x'.repeat(5000))).toBe(hashText('x'.repeat(1024)));
  });
});

describe('hash ring', () => {
  it('gives a key the same instance at every host, in whatever order it knows them', () => {
    const of = candidates(Array.from({ length: 20 }, () => 100));
    const other = [...of].reverse();
    expect(owners(other)).toEqual(owners(of));
  });

  it('shares keys by weight', () => {
    const weights = [100, 100, 200, 50, 100, 100, 300, 100, 100, 100];
    const of = candidates(weights);
    const all = Array.from({ length: 20_000 }, (_, i) => `k${i}`);
    const ringHash = picker(of);
    const counts = of.map(() => 0);
    for (const key of all) counts[Number(ringHash.pick(NONE, key)!.id.slice(1))]!++;
    const whole = weights.reduce((sum, weight) => sum + weight, 0);
    for (const [i, weight] of weights.entries()) {
      const share = counts[i]! / all.length / (weight / whole);
      expect(share).toBeGreaterThan(0.7);
      expect(share).toBeLessThan(1.35);
    }
  });

  it('moves about 1/n of the keys when one goes or comes, and none between others', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 60 }), fc.nat(), (count, which) => {
        const all = candidates(Array.from({ length: count }, () => 100));
        const gone = all[which % count]!;
        const rest = all.filter((one) => one !== gone);
        const before = owners(all);
        const after = owners(rest);
        const strays = before.filter((id, i) => id !== gone.instance.id && after[i] !== id);
        expect(strays).toEqual([]);
        expect(moved(before, after)).toBeLessThan(1.8 / count + 0.01);
      }),
      { numRuns: 30 },
    );
  });

  it('keeps the keys of others when one may not be used for a while', () => {
    const all = candidates(Array.from({ length: 10 }, () => 100));
    const ring = new HashRing(all.map((one) => one.instance));
    const before = owners(all, ring);
    const after = owners(all.slice(1), ring);
    expect(before.filter((id, i) => id !== 'i0' && after[i] !== id)).toEqual([]);
    expect(after).not.toContain('i0');
  });

  it('is bounded, whatever the weights and however many there are', () => {
    const ringOf = (count: number, weight: (i: number) => number): HashRing =>
      new HashRing(
        Array.from({ length: count }, (_, i): Instance => instance(`i${i}`, { weight: weight(i) })),
      );
    expect(ringOf(3, () => 100).size).toBeLessThan(3 * 256);
    expect(ringOf(5000, () => 1).size).toBeLessThan(131_072);
    expect(ringOf(2000, (i) => (i === 0 ? 65_535 : 1)).size).toBeLessThan(131_072);
    // Even the lightest has a place.
    const ring = ringOf(10, (i) => (i === 0 ? 1 : 65_535));
    expect(Array.from({ length: ring.size }, (_, i) => ring.owner(i))).toContain(0);
  });

  it('is the same for the same names and weights only', () => {
    const ring = new HashRing([instance('a'), instance('b')]);
    expect(ring.isFor([instance('a', { draining: true }), instance('b')])).toBe(true);
    expect(ring.isFor([instance('a', { weight: 50 }), instance('b')])).toBe(false);
    expect(ring.isFor([instance('a')])).toBe(false);
    expect(ring.isFor([instance('a'), instance('c')])).toBe(false);
  });
});

describe('bounded load', () => {
  it('lets nobody have more than its share of what is active', () => {
    const of = candidates(Array.from({ length: 10 }, () => 100));
    const ringHash = picker(of);
    for (let i = 1; i <= 400; i++) {
      // One key for all of them.
      of[Number(ringHash.pick(NONE, 'hot')!.id.slice(1))]!.load.active++;
      const most = Math.max(...of.map(({ load }) => load.active));
      expect(most).toBeLessThanOrEqual(Math.ceil((1.25 * i) / 10));
    }
  });

  it('goes on to the same next one every time', () => {
    const of = candidates(Array.from({ length: 10 }, () => 100));
    const first = picker(of).pick(NONE, 'k')!;
    of[Number(first.id.slice(1))]!.load.active = 50;
    const next = picker(of).pick(NONE, 'k')!;
    expect(next).not.toBe(first);
    expect(picker(of, { seed: 9 }).pick(NONE, 'k')).toBe(next);
    expect(picker(of, { bound: 10_000 }).pick(NONE, 'k')).toBe(first);
  });
});

it('an instance in slow start takes a growing part of its keys, and always the same', () => {
  const whole = candidates(Array.from({ length: 10 }, () => 100));
  const home = owners(whole);
  const mine = home.filter((id) => id === 'i0').length;
  let before = new Set<number>();
  for (const share of [0.1, 0.4, 0.8, 1]) {
    const of = whole.map((one, i) => (i === 0 ? { ...one, share, weight: 100 * share } : one));
    const now = owners(of);
    const kept = new Set(now.flatMap((id, i) => (id === 'i0' ? [i] : [])));
    expect(kept.size / mine).toBeGreaterThan(share - 0.12);
    expect(kept.size / mine).toBeLessThan(share + 0.12);
    expect([...before].filter((i) => !kept.has(i))).toEqual([]);
    expect(now.filter((id, i) => home[i] !== 'i0' && id !== home[i])).toEqual([]);
    before = kept;
  }
});

it('what has no key goes where there are few requests', () => {
  const of = candidates([100, 100, 100]);
  of[0]!.load.active = 3;
  of[1]!.load.active = 3;
  const ringHash = picker(of);
  const picked = Array.from({ length: 200 }, () => ringHash.pick(NONE)!.id);
  expect(picked.filter((id) => id === 'i2').length).toBeGreaterThan(100);
});
