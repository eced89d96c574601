import { describe, expect, test } from 'vitest';
import { PendingBytes } from '../../../src/io/pending.ts';
import { patternBytes } from '../../conformance/channel.ts';

describe('PendingBytes', () => {
  test('gives back in order what was appended in any pieces, taken in any pieces', () => {
    const bytes = patternBytes(200_000, 1);
    const pending = new PendingBytes();
    const out: Uint8Array[] = [];
    let put = 0;
    let taken = 0;
    for (let step = 1; taken < bytes.length; step++) {
      const piece = bytes.subarray(put, put + ((step * 7919) % 9000));
      const reused = piece.slice();
      pending.append(reused);
      reused.fill(0);
      put += piece.length;
      const head = pending.head();
      const count = put >= bytes.length ? head.length : Math.min(head.length, (step * 104729) % 7000);
      out.push(head.slice(0, count));
      pending.consume(count);
      taken += count;
      expect(pending.length).toBe(put - taken);
    }
    expect(Buffer.compare(Buffer.concat(out), bytes)).toBe(0);
    expect(pending.head()).toHaveLength(0);
  });
  test('small pieces that wait behind another go out together', () => {
    const pending = new PendingBytes();
    pending.append(new Uint8Array(100));
    for (let i = 0; i < 50; i++) pending.append(new Uint8Array(10));
    expect(pending.head()).toHaveLength(100);
    pending.consume(100);
    expect(pending.head()).toHaveLength(500);
  });
  test('clear forgets everything', () => {
    const pending = new PendingBytes();
    pending.append(new Uint8Array(10));
    pending.consume(3);
    pending.clear();
    expect([pending.length, pending.head().length]).toEqual([0, 0]);
    pending.append(new Uint8Array(2));
    expect(pending.head()).toHaveLength(2);
  });
});
