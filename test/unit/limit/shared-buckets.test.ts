import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { mapShared } from '../../../src/io/shared-memory.ts';
import { BUCKETS, type BucketRate, SHARED_BYTES, SharedBuckets } from '../../../src/limit/shared-buckets.ts';

const MS = 1_000_000n;
/** Ten a second, three at once. */
const RATE: BucketRate = { each: 100n * MS, ahead: 200n * MS };

const fresh = () => new SharedBuckets(new ArrayBuffer(SHARED_BYTES));

describe('one key', () => {
  test('its burst, then evenly', () => {
    const buckets = fresh();
    const now = 5000n * MS;
    expect([1, 2, 3].map(() => buckets.take('a', RATE, now))).toEqual([0n, 0n, 0n]);
    expect(buckets.take('a', RATE, now)).toBe(100n * MS);
    expect(buckets.take('a', RATE, now + 99n * MS)).toBe(1n * MS);
    expect(buckets.take('a', RATE, now + 100n * MS)).toBe(0n);
    expect(buckets.take('a', RATE, now + 100n * MS)).toBe(100n * MS);
  });

  test('never more than burst and rate in any span', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 200 }), (pauses) => {
        const buckets = fresh();
        const taken: bigint[] = [];
        let now = 1n;
        for (const pause of pauses) {
          now += BigInt(pause) * MS;
          if (buckets.take('a', RATE, now) === 0n) taken.push(now);
        }
        for (let i = 0; i + 3 < taken.length; i++) {
          // Four of them never come within the time in which one becomes free.
          expect(taken[i + 3]! - taken[i]!).toBeGreaterThanOrEqual(RATE.each);
        }
      }),
    );
  });

  test('waits for no rate that it had before', () => {
    const buckets = fresh();
    const now = 5000n * MS;
    const hourly = { each: 3_600_000n * MS, ahead: 4n * 3_600_000n * MS };
    for (let i = 0; i < 5; i++) expect(buckets.take('a', hourly, now)).toBe(0n);
    expect(buckets.take('a', hourly, now)).toBeGreaterThan(0n);
    expect([1, 2, 3].map(() => buckets.take('a', RATE, now + MS))).toEqual([0n, 0n, 0n]);
    expect(buckets.take('a', RATE, now + MS)).toBe(100n * MS);
  });

  test('a worker whose clock was read earlier gives nothing more', () => {
    const buckets = fresh();
    const now = 5000n * MS;
    for (let i = 0; i < 3; i++) buckets.take('a', RATE, now + 999n * MS);
    expect(buckets.take('a', RATE, now)).toBeGreaterThan(0n);
  });

  test('is shared by all who look at the same memory', () => {
    const memory = new ArrayBuffer(SHARED_BYTES);
    const [one, other] = [new SharedBuckets(memory), new SharedBuckets(memory)];
    expect([one.take('a', RATE, 1n), other.take('a', RATE, 1n), one.take('a', RATE, 1n)]).toEqual([
      0n,
      0n,
      0n,
    ]);
    expect(other.take('a', RATE, 1n)).toBeGreaterThan(0n);
  });
});

test('keys are counted apart', () => {
  const buckets = fresh();
  for (let i = 0; i < 1000; i++) expect(buckets.take(`key-${i}`, { each: MS, ahead: 0n }, 1n)).toBe(0n);
  for (let i = 0; i < 1000; i++) expect(buckets.take(`key-${i}`, { each: MS, ahead: 0n }, 1n)).toBe(MS);
});

test('more keys than buckets: none waits for another, those in use are kept as far as there is room', () => {
  const buckets = fresh();
  const slow = { each: 3_600_000n * MS, ahead: 0n };
  for (let i = 0; i < 4 * BUCKETS; i++)
    expect(buckets.take(`flood-${i}`, { each: MS, ahead: 0n }, 1n)).toBe(0n);
  // One that is empty later than what floods stays.
  expect(buckets.take('kept', slow, 1n)).toBe(0n);
  for (let i = 0; i < 4 * BUCKETS; i++) buckets.take(`more-${i}`, { each: MS, ahead: 0n }, 1n);
  expect(buckets.take('kept', slow, 1n)).toBeGreaterThan(0n);
});

describe('mapped memory', () => {
  let directory = '';
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'mesh-buckets-'));
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  test('two mappings of a file are the same memory', () => {
    const path = join(directory, 'limits');
    const [one, other] = [1, 2].map(() => new SharedBuckets(mapShared(path, SHARED_BYTES)));
    expect([1, 2, 3].map((i) => (i === 2 ? other : one)!.take('a', RATE, 1n))).toEqual([0n, 0n, 0n]);
    expect(other!.take('a', RATE, 1n)).toBeGreaterThan(0n);
  });

  test('whoever comes late finds what is there, also where the file has only begun', () => {
    const path = join(directory, 'begun');
    const first = mapShared(path, 8192);
    new Uint8Array(first)[0] = 7;
    expect(new Uint8Array(mapShared(path, 8192))[0]).toBe(7);
    // It had been lengthened no further when the next one looked.
    const half = join(directory, 'half');
    writeFileSync(half, new Uint8Array([5]), { mode: 0o600 });
    expect(new Uint8Array(mapShared(half, 8192))[0]).toBe(5);
  });

  test('the file is of this user alone, and of the right size', () => {
    const path = join(directory, 'mode');
    expect(mapShared(path, 4096).byteLength).toBe(4096);
    expect(statSync(path)).toMatchObject({ size: 4096 });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    writeFileSync(join(directory, 'long'), 'x'.repeat(5000));
    expect(() => mapShared(join(directory, 'long'), 4096)).toThrow('4096 bytes');
    symlinkSync(path, join(directory, 'link'));
    expect(() => mapShared(join(directory, 'link'), 4096)).toThrow('ELOOP');
  });
});
