import { describe, expect, it } from 'vitest';
import { Observations, parseObservation } from '../../../src/capture/observations.ts';
import type { EndpointKey } from '../../../src/model/address.ts';

const at = (text: string) => text as EndpointKey;

describe('Observations', () => {
  it('counts pairs and keeps their times', () => {
    const seen = new Observations();
    seen.note('user:a', at('10.0.0.1:80'), 5);
    seen.note('user:b', at('10.0.0.1:80'), 6);
    seen.note('user:a', at('10.0.0.1:80'), 7);
    expect([...seen]).toEqual([
      { caller: 'user:b', destination: '10.0.0.1:80', count: 1, firstSeen: 6, lastSeen: 6 },
      { caller: 'user:a', destination: '10.0.0.1:80', count: 2, firstSeen: 5, lastSeen: 7 },
    ]);
    const again = new Observations();
    again.restore(seen);
    again.note('user:b', at('10.0.0.1:80'), 9);
    expect([...again].at(-1)).toMatchObject({ caller: 'user:b', count: 2, firstSeen: 6, lastSeen: 9 });
  });

  it('forgets what was not seen for longest, and counts it', () => {
    const seen = new Observations(2);
    for (const port of [1, 2, 1, 3]) seen.note('user:a', at(`10.0.0.1:${port}`), port);
    expect([...seen].map(({ destination }) => destination)).toEqual(['10.0.0.1:1', '10.0.0.1:3']);
    expect([seen.size, seen.forgotten]).toEqual([2, 1]);
  });

  it('knows packets that are sent again, for as long as that matters', () => {
    const seen = new Observations();
    expect([seen.isNew('x'), seen.isNew('x')]).toEqual([true, false]);
    for (let i = 0; i < 4096; i++) seen.isNew(`y${i}`);
    expect(seen.isNew('x')).toBe(false);
    for (let i = 0; i < 8192; i++) seen.isNew(`z${i}`);
    expect(seen.isNew('x')).toBe(true);
  });

  it('reads back what it wrote, and nothing else', () => {
    const good = { caller: 'user:a', destination: '[fd00::1]:80', count: 1, firstSeen: 2, lastSeen: 3 };
    expect(parseObservation(good)).toEqual(good);
    for (const bad of [
      null,
      7,
      {},
      { ...good, caller: 'a\nb' },
      { ...good, caller: '' },
      { ...good, destination: 'fd00::1' },
      { ...good, count: -1 },
      { ...good, count: '1' },
      { ...good, lastSeen: Number.NaN },
    ])
      expect(parseObservation(bad)).toBeUndefined();
  });
});
