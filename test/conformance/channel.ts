import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Channel, ChannelClose, ChannelHandler } from '../../src/io/channel.ts';

/** Two connected channels: what goes into one comes out of the other. Both are paused and without handler. */
interface ChannelPair {
  readonly a: Channel;
  readonly b: Channel;
  /** Frees everything; both channels are closed or reset by then. */
  done(): Promise<void>;
}

const DEADLINE_MS = 5000;

/** Waits until `condition` holds; fails with `what` after {@link DEADLINE_MS}. */
async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + DEADLINE_MS;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not within ${DEADLINE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Lets everything that is under way arrive: used to show that something does *not* happen. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(resolve, 2));
}

/** Bytes that differ at every position in a way that a lost, doubled or swapped piece shows. */
export function patternBytes(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** Writes down everything that a channel tells its owner, and asserts the rules of order. */
export class Recorder implements ChannelHandler {
  readonly chunks: Uint8Array[] = [];
  readonly calls: string[] = [];
  received = 0;
  ended = false;
  drains = 0;
  closes: ChannelClose[] = [];
  /** True during the owner's own call of write, end or reset. */
  inCall = false;
  violations: string[] = [];
  onData: ((bytes: Uint8Array) => void) | undefined;
  onEnd: (() => void) | undefined;
  onDrain: (() => void) | undefined;
  readonly channel: Channel;

  constructor(channel: Channel) {
    this.channel = channel;
    channel.handler = this;
  }

  open(): void {
    this.#note('open');
  }
  data(bytes: Uint8Array): void {
    this.#note('data');
    if (this.ended) this.violations.push('data after end');
    if (bytes.length === 0) this.violations.push('empty data');
    this.chunks.push(bytes.slice());
    this.received += bytes.length;
    this.onData?.(bytes);
  }
  end(): void {
    this.#note('end');
    if (this.ended) this.violations.push('end twice');
    this.ended = true;
    this.onEnd?.();
  }
  drain(): void {
    this.#note('drain');
    this.drains++;
    if (this.channel.pendingBytes !== 0) this.violations.push('drain while bytes are pending');
    this.onDrain?.();
  }
  close(why: ChannelClose): void {
    this.#note('close');
    this.closes.push(why);
  }

  get closed(): boolean {
    return this.closes.length > 0;
  }
  get reason(): string | undefined {
    return this.closes[0]?.reason;
  }
  bytes(): Uint8Array {
    return Buffer.concat(this.chunks);
  }
  write(bytes: Uint8Array): boolean {
    return this.#call(() => this.channel.write(bytes));
  }
  end_(): void {
    this.#call(() => this.channel.end());
  }
  reset(): void {
    this.#call(() => this.channel.reset());
  }

  #call<T>(action: () => T): T {
    this.inCall = true;
    try {
      return action();
    } finally {
      this.inCall = false;
    }
  }
  #note(call: string): void {
    if (this.inCall) this.violations.push(`${call} within the owner's own call`);
    if (this.closed) this.violations.push(`${call} after close`);
    this.calls.push(call);
  }
}

/** Writes `total` bytes as fast as backpressure allows, then calls `finished`. */
function pour(from: Recorder, bytes: Uint8Array, chunk: number, finished: () => void): void {
  let at = 0;
  const more = () => {
    while (at < bytes.length) {
      const next = bytes.subarray(at, at + chunk);
      at += next.length;
      if (!from.write(next)) return;
    }
    from.onDrain = undefined;
    finished();
  };
  from.onDrain = more;
  more();
}

/** A channel that is not open yet: its opening cannot have been noticed before the caller's turn is over. */
interface OpeningPair {
  readonly a: Channel;
  readonly b: Promise<Channel>;
  done(): Promise<void>;
}

/** The one suite that every implementation of {@link Channel} passes. */
export function channelConformance(
  name: string,
  makePair: () => Promise<ChannelPair>,
  startPair?: () => OpeningPair,
): void {
  if (startPair !== undefined) openingConformance(name, startPair);
  describe(`${name} is a Channel`, () => {
    let pair: ChannelPair;
    let a: Recorder;
    let b: Recorder;

    beforeEach(async () => {
      pair = await makePair();
      a = new Recorder(pair.a);
      b = new Recorder(pair.b);
    });
    afterEach(async () => {
      a.reset();
      b.reset();
      await until('both channels closed', () => a.closed && b.closed);
      await settle();
      expect([...a.violations, ...b.violations]).toEqual([]);
      expect([a.closes.length, b.closes.length]).toEqual([1, 1]);
      expect([a.calls.at(-1), b.calls.at(-1)]).toEqual(['close', 'close']);
      await pair.done();
    });
    const resumeBoth = () => {
      a.channel.resume();
      b.channel.resume();
    };

    for (const [total, chunk] of [
      [1, 1],
      [1000, 1],
      [100_000, 777],
      [1_000_000, 16_384],
      [3_000_000, 65_537],
      [8_000_000, 1_000_000],
    ] as const) {
      test(`${total} bytes in pieces of ${chunk} arrive intact in both directions at once`, async () => {
        resumeBoth();
        const there = patternBytes(total, 1);
        const back = patternBytes(total, 2);
        pour(a, there, chunk, () => a.end_());
        pour(b, back, chunk, () => b.end_());
        await until('both closed', () => a.closed && b.closed);
        expect(Buffer.compare(b.bytes(), there)).toBe(0);
        expect(Buffer.compare(a.bytes(), back)).toBe(0);
        expect([a.reason, b.reason]).toEqual(['done', 'done']);
        expect([a.ended, b.ended]).toEqual([true, true]);
      });
    }

    test('the writer may reuse its buffer as soon as write returns', async () => {
      const bytes = new Uint8Array(200_000);
      const expected: Uint8Array[] = [];
      for (let i = 1; i <= 100; i++) {
        bytes.fill(i);
        expected.push(bytes.slice());
        a.write(bytes);
      }
      bytes.fill(255);
      a.end_();
      resumeBoth();
      await until('end', () => b.ended);
      expect(Buffer.compare(b.bytes(), Buffer.concat(expected))).toBe(0);
    });

    test('starts paused: nothing is told before resume', async () => {
      a.write(patternBytes(100, 3));
      a.end_();
      await settle();
      expect(b.calls.filter((call) => call !== 'open')).toEqual([]);
      b.channel.resume();
      await until('end', () => b.ended);
      expect(b.received).toBe(100);
    });

    test('a reader that stops makes write return false; a drain follows when it goes on', async () => {
      const chunk = patternBytes(64 << 10, 4);
      let taken = 0;
      let refused = false;
      while (taken < 256 << 20) {
        taken += chunk.length;
        if (!a.write(chunk)) {
          refused = true;
          // What is in flight may still find room: only a refusal that lasts is backpressure.
          await settle();
          if (a.drains === 0) break;
          a.drains = 0;
          refused = false;
        }
      }
      expect(refused).toBe(true);
      expect(a.channel.pendingBytes).toBeGreaterThan(0);
      expect(a.channel.pendingBytes).toBeLessThanOrEqual(chunk.length + (1 << 20));
      expect(b.received).toBe(0);
      resumeBoth();
      await until('drain', () => a.drains > 0);
      await until('all bytes', () => b.received === taken);
      expect(a.channel.pendingBytes).toBe(0);
    });

    test('a slow reader gets everything, and what waits stays bounded', async () => {
      const bytes = patternBytes(4_000_000, 5);
      let most = 0;
      b.onData = () => {
        most = Math.max(most, a.channel.pendingBytes);
        b.channel.pause();
        setImmediate(() => b.channel.resume());
      };
      resumeBoth();
      pour(a, bytes, 32 << 10, () => a.end_());
      await until('end', () => b.ended);
      expect(Buffer.compare(b.bytes(), bytes)).toBe(0);
      expect(most).toBeLessThanOrEqual((32 << 10) + (1 << 20));
    });

    test('pause inside data stops data and end until resume', async () => {
      b.onData = () => b.channel.pause();
      resumeBoth();
      a.write(patternBytes(2_000_000, 6).subarray(0, 100_000));
      a.end_();
      await until('first data', () => b.received > 0);
      await settle();
      const first = b.received;
      expect(b.chunks).toHaveLength(1);
      expect(b.ended).toBe(false);
      b.onData = undefined;
      b.channel.resume();
      await until('end', () => b.ended);
      expect(b.received).toBe(100_000);
      expect(first).toBeLessThanOrEqual(100_000);
    });

    test('pausing again before the data comes keeps it back', async () => {
      a.write(patternBytes(10, 7));
      await settle();
      b.channel.resume();
      b.channel.pause();
      await settle();
      expect(b.received).toBe(0);
      b.channel.resume();
      await until('data', () => b.received === 10);
    });

    test('half-close: the other direction goes on until it ends, too', async () => {
      resumeBoth();
      a.write(patternBytes(10, 8));
      a.end_();
      await until('b sees the end', () => b.ended);
      expect([a.closed, b.closed]).toEqual([false, false]);
      const answer = patternBytes(1_000_000, 9);
      pour(b, answer, 50_000, () => b.end_());
      await until('both closed', () => a.closed && b.closed);
      expect(Buffer.compare(a.bytes(), answer)).toBe(0);
      expect([a.reason, b.reason]).toEqual(['done', 'done']);
    });

    test('half-close from the other side', async () => {
      resumeBoth();
      b.end_();
      await until('a sees the end', () => a.ended);
      a.write(patternBytes(5, 10));
      await until('data after the end of the other half', () => b.received === 5);
      a.end_();
      await until('both closed', () => a.closed && b.closed);
      expect([a.reason, b.reason]).toEqual(['done', 'done']);
    });

    test('both sides end at once', async () => {
      resumeBoth();
      a.end_();
      b.end_();
      await until('both closed', () => a.closed && b.closed);
      expect([a.reason, b.reason]).toEqual(['done', 'done']);
      expect([a.ended, b.ended]).toEqual([true, true]);
    });

    test('end within end and within data', async () => {
      b.onEnd = () => b.channel.end();
      resumeBoth();
      a.write(patternBytes(3, 11));
      a.end_();
      await until('both closed', () => a.closed && b.closed);
      expect([a.reason, b.reason]).toEqual(['done', 'done']);
    });

    test('end lets go out what is pending', async () => {
      const bytes = patternBytes(8_000_000, 12);
      a.write(bytes);
      a.end_();
      resumeBoth();
      await until('end', () => b.ended);
      expect(Buffer.compare(b.bytes(), bytes)).toBe(0);
    });

    test('write after end is ignored and returns true', async () => {
      resumeBoth();
      a.write(patternBytes(4, 13));
      a.end_();
      expect(a.write(patternBytes(100, 14))).toBe(true);
      a.end_();
      await until('end', () => b.ended);
      expect(b.received).toBe(4);
    });

    test('reset is seen as a reset, never as an end', async () => {
      resumeBoth();
      a.write(patternBytes(10, 15));
      await until('data', () => b.received === 10);
      a.reset();
      expect(a.closed).toBe(false);
      await until('both closed', () => a.closed && b.closed);
      expect([a.reason, b.reason]).toEqual(['local', 'reset']);
      expect([a.ended, b.ended]).toEqual([false, false]);
    });

    test('reset from the other side, after its half had been ended', async () => {
      resumeBoth();
      b.end_();
      await until('a sees the end', () => a.ended);
      b.reset();
      await until('both closed', () => a.closed && b.closed);
      expect([a.reason, b.reason]).toEqual(['reset', 'local']);
    });

    test('reset by the side that has seen an end', async () => {
      resumeBoth();
      b.end_();
      await until('a sees the end', () => a.ended);
      a.reset();
      await until('both closed', () => a.closed && b.closed);
      expect([a.reason, b.reason]).toEqual(['local', 'reset']);
      expect(b.ended).toBe(false);
    });

    test('reset reaches a paused channel', async () => {
      a.channel.resume();
      a.write(patternBytes(10, 16));
      await settle();
      a.reset();
      await until('both closed', () => a.closed && b.closed);
      expect([a.reason, b.reason]).toEqual(['local', 'reset']);
      expect(b.ended).toBe(false);
    });

    test('reset with bytes pending in both directions drops them', async () => {
      const bytes = patternBytes(8_000_000, 17);
      a.write(bytes);
      b.write(bytes);
      expect(a.channel.pendingBytes).toBeGreaterThan(0);
      a.reset();
      expect(a.channel.pendingBytes).toBe(0);
      await until('both closed', () => a.closed && b.closed);
      expect([a.reason, b.reason]).toEqual(['local', 'reset']);
      expect([a.ended, b.ended]).toEqual([false, false]);
    });

    test('reset with an end pending behind bytes', async () => {
      a.write(patternBytes(16_000_000, 18));
      a.end_();
      a.reset();
      b.channel.resume();
      await until('both closed', () => a.closed && b.closed);
      expect(b.reason).toBe('reset');
      expect(b.ended).toBe(false);
    });

    test('both sides reset at once', async () => {
      resumeBoth();
      a.reset();
      b.reset();
      await until('both closed', () => a.closed && b.closed);
      expect(a.reason).toBe('local');
    });

    test('reset within data stops everything', async () => {
      b.onData = () => b.channel.reset();
      resumeBoth();
      pour(a, patternBytes(2_000_000, 19), 100_000, () => {});
      await until('both closed', () => a.closed && b.closed);
      expect(b.chunks).toHaveLength(1);
      expect([a.reason, b.reason]).toEqual(['reset', 'local']);
    });

    test('everything after close is ignored', async () => {
      resumeBoth();
      a.end_();
      b.end_();
      await until('both closed', () => a.closed && b.closed);
      expect(a.write(patternBytes(10, 20))).toBe(true);
      a.end_();
      a.reset();
      a.channel.pause();
      a.channel.resume();
      expect(a.channel.pendingBytes).toBe(0);
      await settle();
      expect(a.closes).toHaveLength(1);
    });

    test('an empty write changes nothing', async () => {
      resumeBoth();
      expect(a.write(new Uint8Array(0))).toBe(true);
      a.end_();
      await until('end', () => b.ended);
      expect(b.received).toBe(0);
    });
  });
}

function openingConformance(name: string, startPair: () => OpeningPair): void {
  describe(`${name} before it is open`, () => {
    test('keeps what is written, and the end behind it', async () => {
      const pair = startPair();
      const a = new Recorder(pair.a);
      const bytes = patternBytes(5000, 30);
      a.channel.resume();
      for (let at = 0; at < bytes.length; at += 500) a.write(bytes.subarray(at, at + 500));
      expect(a.channel.pendingBytes).toBe(bytes.length);
      a.end_();
      a.write(bytes);
      expect(a.calls).toEqual([]);
      const b = new Recorder(await pair.b);
      b.channel.resume();
      await until('end', () => b.ended);
      expect(Buffer.compare(b.bytes(), bytes)).toBe(0);
      b.end_();
      await until('both closed', () => a.closed && b.closed);
      expect([a.reason, b.reason]).toEqual(['done', 'done']);
      expect(a.calls[0]).toBe('open');
      expect(a.calls.filter((call) => call === 'open')).toHaveLength(1);
      expect([...a.violations, ...b.violations]).toEqual([]);
      await pair.done();
    });

    test('drains what was written, after it has told that it is open', async () => {
      const pair = startPair();
      const a = new Recorder(pair.a);
      a.channel.resume();
      expect(a.write(patternBytes(100, 31))).toBe(false);
      const b = new Recorder(await pair.b);
      b.channel.resume();
      await until('drain', () => a.drains === 1);
      expect(a.calls).toEqual(['open', 'drain']);
      a.reset();
      await until('both closed', () => a.closed && b.closed);
      await pair.done();
    });

    test('a reset is told by close, and nothing counts as delivered', async () => {
      const pair = startPair();
      const a = new Recorder(pair.a);
      a.channel.resume();
      a.write(patternBytes(100, 32));
      a.reset();
      expect(a.closed).toBe(false);
      await until('closed', () => a.closed);
      expect(a.closes[0]).toMatchObject({ reason: 'local', delivered: false });
      await settle();
      expect(a.calls).toEqual(['close']);
      await pair.done();
    });
  });
}
