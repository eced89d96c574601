import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Share, Shares } from '../../../src/caller/shares.ts';

test('one caller has its share and no more; others go on', () => {
  const shares = new Shares();
  const first = shares.take('unit:a.service', 2);
  const second = shares.take('unit:a.service', 2);
  expect(second).toBe(first);
  expect(shares.take('unit:a.service', 2)).toBeUndefined();
  expect(first?.live).toBe(2);
  expect(shares.take('unit:b.service', 2)?.live).toBe(1);
  second?.leave();
  expect(shares.take('unit:a.service', 2)?.live).toBe(2);
});

test('counting is exact, and callers without connections are forgotten', () => {
  const step = fc.tuple(fc.constantFrom('a', 'b', 'c', 'd'), fc.boolean());
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const shares = new Shares();
      const held = new Map<string, Share[]>();
      for (const [key, opens] of steps) {
        const mine = held.get(key) ?? [];
        held.set(key, mine);
        if (opens) {
          const share = shares.take(key, 5);
          expect(share === undefined).toBe(mine.length === 5);
          if (share !== undefined) mine.push(share);
        } else mine.pop()?.leave();
        for (const one of mine) expect(one.live).toBe(mine.length);
      }
      expect(shares.size).toBe([...held.values()].filter((mine) => mine.length > 0).length);
    }),
  );
});
