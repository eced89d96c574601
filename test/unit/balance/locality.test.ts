import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { distanceOf, ringShares } from '../../../src/balance/locality.ts';
import type { NodeName } from '../../../src/model/service.ts';
import { instance, locality } from './samples.ts';

const ring = (present: number, usable: number) => ({ present, usable });

describe('shares of rings', () => {
  it('the nearest takes all, while enough of it is usable', () => {
    const overflow = { below: 70, minimumNear: 1 };
    expect(ringShares([ring(10, 10), ring(5, 5)], overflow)).toEqual([1, 0]);
    expect(ringShares([ring(10, 7), ring(5, 5)], overflow)).toEqual([1, 0]);
    const [near, far] = ringShares([ring(10, 5), ring(5, 5)], overflow);
    expect([near, far]).toEqual([expect.closeTo(5 / 7), expect.closeTo(2 / 7)]);
    expect(ringShares([ring(10, 0), ring(5, 5)], overflow)).toEqual([0, 1]);
  });

  it('what is left goes on, ring by ring', () => {
    const shares = ringShares([ring(2, 1), ring(2, 1), ring(2, 2)], { below: 100, minimumNear: 1 });
    expect(shares).toEqual([0.5, 0.25, 0.25]);
  });

  it('takes no more than usable ones so far, of those that there must be', () => {
    const shares = ringShares([ring(1, 1), ring(1, 1), ring(9, 9)], { below: 0, minimumNear: 4 });
    expect(shares).toEqual([0.25, 0.375, 0.375]);
  });

  it('all take it in the same measure where all are sick', () => {
    expect(ringShares([ring(4, 1), ring(4, 1)], { below: 100, minimumNear: 1 })).toEqual([
      expect.closeTo(0.25 / 0.4375),
      expect.closeTo(0.1875 / 0.4375),
    ]);
  });

  it('are those of a whole, and none is for a ring that has nobody', () => {
    const rings = fc.array(
      fc.tuple(fc.nat(20), fc.nat(20)).map(([usable, others]) => ring(usable + others, usable)),
      { minLength: 1, maxLength: 6 },
    );
    fc.assert(
      fc.property(rings, fc.integer({ min: 0, max: 100 }), fc.nat(10), (of, below, minimumNear) => {
        const shares = ringShares(of, { below, minimumNear });
        if (of.every(({ usable }) => usable === 0)) return;
        expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1);
        for (const [i, share] of shares.entries()) {
          expect(share).toBeGreaterThanOrEqual(0);
          if (of[i]!.usable === 0) expect(share).toBe(0);
        }
      }),
    );
  });
});

it('distance: this node, this zone, other zones in their order, all others', () => {
  const at = (zone: string, node?: string) =>
    instance('x', node === undefined ? { zone } : { zone, node: node as NodeName });
  const of = [at('a', 'here'), at('a', 'there'), at('b'), at('c'), at('z'), at('y')];
  expect(of.map((one) => distanceOf(one, locality, false))).toEqual([0, 1, 2, 3, 4, 4]);
  expect(of.map((one) => distanceOf(one, locality, true))).toEqual([1, 1, 2, 3, 4, 4]);
});
