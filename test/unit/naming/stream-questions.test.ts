import { Duplex } from 'node:stream';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { answer } from '../../../src/naming/answer.ts';
import {
  IDLE_MS,
  MAX_IN_FLIGHT,
  MAX_WAITING_BYTES,
  StreamQuestions,
} from '../../../src/naming/stream-questions.ts';
import { question } from './questions.ts';
import { nameSpace } from './sample-names.ts';

const names = nameSpace();

/** A connection whose other side reads only when it is told to. */
class SlowReader extends Duplex {
  /** Answers that have left, each with its length. */
  readonly left: Buffer[] = [];
  #taken: (() => void) | undefined;
  #reads = false;

  constructor() {
    super({ writableHighWaterMark: MAX_WAITING_BYTES });
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, taken: () => void): void {
    this.left.push(chunk);
    if (this.#reads) setImmediate(taken);
    else this.#taken = taken;
  }

  /** Lets one answer leave. */
  readOne(): void {
    this.#taken?.();
  }

  readAll(): void {
    this.#reads = true;
    this.#taken?.();
  }
}

let socket: SlowReader;
/** Answers that were made. */
let made: Buffer[];

beforeEach(() => {
  socket = new SlowReader();
  made = [];
  new StreamQuestions(socket, (message) => {
    const reply = answer(message, 'tcp', names);
    if (reply !== undefined) made.push(reply);
    return reply;
  });
});
afterEach(() => {
  socket.destroy();
  vi.useRealTimers();
});

function framed(...messages: readonly Buffer[]): Buffer {
  return Buffer.concat(messages.flatMap((one) => [Buffer.of(one.length >> 8, one.length & 0xff), one]));
}

const many = (count: number, name: string, type: number) =>
  framed(...Array.from({ length: count }, (_, id) => question(name, type, { id })));
const turn = () => new Promise(setImmediate);

it('holds a bounded number of small answers for who does not read, each at its own size, and reads on no more', async () => {
  socket.push(many(1_000, 'orders.mesh', 1));
  await turn();
  expect(made).toHaveLength(MAX_IN_FLIGHT);
  expect(socket.writableLength).toBe(MAX_IN_FLIGHT * (2 + 29 + 16));
  for (const { buffer } of made) expect(buffer.byteLength).toBeLessThanOrEqual(Buffer.poolSize);
  expect(socket.isPaused()).toBe(true);
  socket.push(many(1_000, 'orders.mesh', 1));
  await turn();
  expect(made).toHaveLength(MAX_IN_FLIGHT);
  expect(socket.destroyed).toBe(false);
});

it('holds a bounded number of bytes for who does not read, of long answers', async () => {
  socket.push(many(1_000, 'many.mesh', 33));
  await turn();
  const length = 2 + made[0]!.length;
  expect(length).toBeGreaterThan(1_500);
  expect(socket.writableLength).toBeGreaterThanOrEqual(MAX_WAITING_BYTES);
  expect(socket.writableLength).toBeLessThan(MAX_WAITING_BYTES + length);
  const memory = new Set(made.map(({ buffer }) => buffer));
  const held = Array.from(memory, ({ byteLength }) => byteLength).reduce((sum, bytes) => sum + bytes, 0);
  expect(held).toBeLessThan(3 * MAX_WAITING_BYTES);
});

it('answers the rest, in order, when the answers leave', async () => {
  socket.push(many(100, 'orders.mesh', 1));
  await turn();
  socket.readOne();
  await turn();
  expect(made).toHaveLength(MAX_IN_FLIGHT + 1);
  socket.readAll();
  await vi.waitFor(() => expect(socket.left).toHaveLength(100), { timeout: 10_000 });
  expect(socket.left.map((one) => one.readUInt16BE(2))).toEqual(Array.from({ length: 100 }, (_, id) => id));
  socket.push(many(1, 'orders.mesh', 1));
  await vi.waitFor(() => expect(socket.left).toHaveLength(101), { timeout: 10_000 });
});

it('ends a connection from which no answer leaves, whatever it sends', async () => {
  socket.destroy();
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  const trickle = new SlowReader();
  new StreamQuestions(trickle, () => Buffer.of(1));
  trickle.readAll();
  trickle.push(framed(Buffer.of(7)));
  while (trickle.left.length < 1) await turn();
  await turn();
  vi.advanceTimersByTime(IDLE_MS - 1);
  trickle.push(framed(Buffer.of(7)));
  while (trickle.left.length < 2) await turn();
  await turn();
  vi.advanceTimersByTime(IDLE_MS - 1);
  trickle.push(Buffer.of(0));
  await turn();
  expect(trickle.destroyed).toBe(false);
  vi.advanceTimersByTime(1);
  expect(trickle.destroyed).toBe(true);
});
