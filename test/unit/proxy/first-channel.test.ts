import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { ChannelClose } from '../../../src/io/channel.ts';
import type { Candidate } from '../../../src/proxy/candidate.ts';
import { FirstChannel } from '../../../src/proxy/first-channel.ts';
import { MemoryChannel } from './memory-channel.ts';

const none: ChannelClose = { reason: 'unreachable', delivered: false, detail: 'no candidate' };
const refused: ChannelClose = { reason: 'refused', delivered: false };

/** Candidates of these patiences, and what became of each. */
function race(...patiences: (number | undefined)[]) {
  const made: MemoryChannel[] = [];
  const told: string[] = [];
  const candidates = (function* (): Generator<Candidate, undefined> {
    for (const [at, patience] of patiences.entries()) {
      const channel = new MemoryChannel();
      made.push(channel);
      yield {
        channel,
        ...(patience === undefined ? {} : { patience }),
        opened: () => told.push(`${at} opened`),
        failed: ({ reason }) => told.push(`${at} ${reason}`),
      };
    }
    return undefined;
  })();
  const first = new FirstChannel(candidates, none);
  const seen = { opened: 0, data: '', close: undefined as ChannelClose | undefined };
  first.handler = {
    open: () => seen.opened++,
    data: (bytes) => {
      seen.data += Buffer.from(bytes).toString();
    },
    end() {},
    drain() {},
    close: (why) => {
      seen.close = why;
    },
  };
  return { first, made, told, seen };
}

describe('candidates that do not answer', () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test('the next one is tried beside it; the bytes go to the one that opens, and to no other', async () => {
    const { first, made, told, seen } = race(100, 100, 100);
    first.write(Buffer.from('hello'));
    await vi.advanceTimersByTimeAsync(99);
    expect(made).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(made).toHaveLength(2);
    expect(made[0]!.resetWith).toBeUndefined();
    made[1]!.handler.open!();
    expect(made.map(({ text }) => text)).toEqual(['', 'hello']);
    expect(made[0]!.resetWith).toBe('timeout');
    expect(told).toEqual(['0 timeout', '1 opened']);
    first.resume();
    made[1]!.handler.data(Buffer.from('hi'));
    await vi.advanceTimersByTimeAsync(1000);
    expect([seen.opened, seen.data, seen.close, made.length]).toEqual([1, 'hi', undefined, 2]);
  });

  test('a slow one that answers before the others is taken, and nothing is held against those', async () => {
    const { first, made, told, seen } = race(100, 100);
    first.write(Buffer.from('hello'));
    await vi.advanceTimersByTimeAsync(150);
    made[0]!.handler.open!();
    expect(made.map(({ text }) => text)).toEqual(['hello', '']);
    expect(made[1]!.resetWith).toBe('timeout');
    expect(told).toEqual(['0 opened']);
    await vi.runAllTimersAsync();
    expect(seen).toMatchObject({ opened: 1, close: undefined });
  });

  test('those that are known to be silent are not waited for; the last one is', async () => {
    const { made, seen } = race(0, -5, 100);
    expect(made).toHaveLength(3);
    await vi.advanceTimersByTimeAsync(5000);
    expect(seen.close).toBeUndefined();
    made[1]!.close(refused);
    made[2]!.close(refused);
    await vi.runAllTimersAsync();
    expect(seen.close, 'one is still out').toBeUndefined();
    made[0]!.handler.open!();
    expect(seen.opened).toBe(1);
  });

  test('a failure makes room at once, also beside one that is waited for', async () => {
    const { made, told } = race(100, 100, 100);
    made[0]!.close(refused);
    expect(made).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(100);
    expect(made).toHaveLength(3);
    made[2]!.close(refused);
    made[1]!.close(refused);
    expect(told).toEqual(['0 refused', '2 refused', '1 refused']);
  });

  test('it closes as the last one did, once nobody is left', async () => {
    const { made, seen } = race(100, 100);
    await vi.advanceTimersByTimeAsync(100);
    made[0]!.close({ ...refused, reason: 'reset' });
    await vi.advanceTimersByTimeAsync(1000);
    expect(seen.close).toBeUndefined();
    made[1]!.close(refused);
    await vi.runAllTimersAsync();
    expect(seen.close).toEqual(refused);
  });

  test('a reset ends all of them, and the waiting', async () => {
    const { first, made, told, seen } = race(100, 100, 100);
    await vi.advanceTimersByTimeAsync(100);
    first.reset('timeout');
    await vi.runAllTimersAsync();
    expect(made.map(({ resetWith }) => resetWith)).toEqual(['timeout', 'timeout']);
    expect(seen.close).toEqual({ reason: 'local', delivered: false });
    expect(told).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });
});
