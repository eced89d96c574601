import { describe, expect, test } from 'vitest';
import { MeshError } from '../../../src/model/errors.ts';
import { ByteQueue } from '../../../src/tunnel/byte-queue.ts';
import { FloodGuard } from '../../../src/tunnel/flood-guard.ts';
import { MIN_UNDER_WAY, Pacer } from '../../../src/tunnel/pacer.ts';
import { OPEN_CREDIT, ReceiveWindow, WindowBudget } from '../../../src/tunnel/window.ts';

const KIB = 1024;
const MIB = 1024 * 1024;

describe('receive window', () => {
  /** The peer uses up the whole window, and the application takes it; returns the credit given. */
  function round(window: ReceiveWindow, now: number, rtt: number | undefined): number {
    expect(window.received(window.size)).toBe(true);
    expect(window.consumed(window.size)).toBe(true);
    return window.grant(now, rtt);
  }

  test('a peer may use its credit and not a byte more', () => {
    const window = new ReceiveWindow(new WindowBudget(MIB), MIB);
    expect(window.received(OPEN_CREDIT)).toBe(true);
    expect(window.received(1)).toBe(false);
  });
  test('credit comes back only for what was taken', () => {
    const window = new ReceiveWindow(new WindowBudget(MIB), MIB);
    window.received(OPEN_CREDIT);
    expect(window.consumed(100)).toBe(false);
    expect(window.consumed(OPEN_CREDIT / 4)).toBe(true);
    expect(window.grant(1, undefined)).toBe(100 + OPEN_CREDIT / 4);
  });
  test('doubles when it is used up within two round trips, up to the greatest', () => {
    const window = new ReceiveWindow(new WindowBudget(64 * MIB), 600 * KIB);
    window.widen(256 * KIB);
    round(window, 1000, 50);
    expect(round(window, 1060, 50)).toBe(512 * KIB);
    expect(window.size).toBe(512 * KIB);
    round(window, 1120, 50);
    expect(window.size).toBe(600 * KIB);
  });
  test('does not grow on a slow use, nor without a known round trip', () => {
    const window = new ReceiveWindow(new WindowBudget(64 * MIB), MIB);
    round(window, 1000, 50);
    round(window, 1200, 50);
    round(window, 1201, undefined);
    expect(window.size).toBe(OPEN_CREDIT);
  });
  test('all windows together stay within the budget, which gets back what ends', () => {
    const budget = new WindowBudget(300 * KIB);
    const first = new ReceiveWindow(budget, MIB);
    const second = new ReceiveWindow(budget, MIB);
    expect(first.widen(256 * KIB)).toBe(240 * KIB);
    expect(second.widen(256 * KIB)).toBe(60 * KIB);
    expect(budget.committed).toBe(300 * KIB);
    first.release();
    expect(second.widen(256 * KIB)).toBe(180 * KIB);
    second.release();
    expect(budget.committed).toBe(0);
  });
});

describe('pacer', () => {
  /** A path of `rate` bytes/ms and `delay` ms, kept full for `ms`; returns the limit at its end. */
  function drive(pacer: Pacer, rate: number, delay: number, ms: number, from = 0): number {
    const answers: { readonly token: bigint; readonly at: number }[] = [];
    let free = from;
    for (let now = from; now < from + ms; now++) {
      while (answers[0] !== undefined && answers[0].at <= now) pacer.acked(answers.shift()!.token, now);
      for (let room = pacer.room(); room > 0; room = pacer.room()) {
        const bytes = Math.min(room, 64 * KIB);
        pacer.sent(bytes);
        free = Math.max(free, now) + bytes / rate;
        if (pacer.markDue) answers.push({ token: pacer.mark(now), at: free + delay });
      }
    }
    return pacer.limit;
  }
  test('finds the bandwidth-delay product of a long path and does not run away', () => {
    const limit = drive(new Pacer(), 100_000, 50, 3000);
    expect(limit).toBeGreaterThan(1.1 * 100_000 * 50);
    expect(limit).toBeLessThan(3 * 100_000 * 50);
  });
  test('keeps little under way on a path without delay', () => {
    expect(drive(new Pacer(), 500_000, 0, 1000)).toBeLessThan(4 * MIN_UNDER_WAY);
  });
  test('a PONG confirms all that was sent before its PING, and unknown ones nothing', () => {
    const pacer = new Pacer();
    pacer.sent(100 * KIB);
    const token = pacer.mark(1);
    pacer.sent(10);
    expect(pacer.acked(token + 1n, 2)).toBe(false);
    expect(pacer.acked(token, 3)).toBe(true);
    expect(pacer.acked(token, 4)).toBe(false);
    expect(pacer.underWay).toBe(10);
    expect(pacer.rtt).toBe(2);
  });
});

describe('byte queue', () => {
  test('gives back what went in, in any pieces', () => {
    const queue = new ByteQueue();
    const put: number[] = [];
    const got: number[] = [];
    let value = 0;
    for (let i = 0; i < 3000; i++) {
      const bytes = Uint8Array.from({ length: (i * 37) % 700 }, () => value++ & 255);
      put.push(...bytes);
      queue.push(bytes);
      for (let rest = (i * 53) % 690; rest > 0 && queue.length > 0; ) {
        const run = queue.peek(rest)!;
        got.push(...run);
        rest -= run.length;
        queue.skip(run.length);
      }
    }
    for (let run = queue.peek(9999); run !== undefined; run = queue.peek(9999)) {
      got.push(...run);
      queue.skip(run.length);
    }
    expect(got).toEqual(put);
    expect(queue.length).toBe(0);
  });
});

describe('flood guard', () => {
  test('lets a second full of frames pass, and ends a flood', () => {
    const guard = new FloodGuard();
    const flood = () => {
      for (let i = 0; i < 1_000_000; i++) guard.control();
    };
    for (let i = 0; i < 20_000; i++) guard.control();
    expect(flood).toThrow(MeshError);
  });
});
