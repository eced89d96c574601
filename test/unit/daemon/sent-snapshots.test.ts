import { expect, it } from 'vitest';
import { SentSnapshots } from '../../../src/daemon/supervisor/sent-snapshots.ts';
import { emptySnapshot } from '../../../src/model/snapshot.ts';

const snapshot = (version: number) => ({ ...emptySnapshot, version });

it('answers the newest snapshot that was acknowledged, also while newer ones are on their way', () => {
  const sent = new SentSnapshots();
  const [two, five, nine] = [snapshot(2), snapshot(5), snapshot(9)];
  for (const one of [two, five, five, nine]) sent.sent(one);
  expect(sent.acknowledged(1)).toBeUndefined();
  expect(sent.acknowledged(7)).toBe(five);
  expect(sent.acknowledged(7)).toBeUndefined();
  expect(sent.acknowledged(9)).toBe(nine);
});

it('holds a bounded number of them', () => {
  const sent = new SentSnapshots();
  for (let version = 1; version <= 1000; version++) sent.sent(snapshot(version));
  expect(sent.acknowledged(700)).toBeUndefined();
  expect(sent.acknowledged(1000)?.version).toBe(1000);
});
