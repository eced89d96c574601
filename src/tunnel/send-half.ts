import { ByteQueue } from './byte-queue.ts';
import { protocolError } from './frame.ts';
import type { Outbox } from './outbox.ts';
import { MAX_CREDIT } from './window.ts';

/** The owner should stop writing from here on. */
const HIGH_WATER = 64 * 1024;
/** Bytes that a stream may put into one message past the limits for bulk data. */
const LIGHT = 4096;

/** What a stream has to send, and how much of it the peer's credit allows. */
export class SendHalf {
  readonly #queue = new ByteQueue();
  #credit = 0;
  #turn = -1;
  #turnBytes = 0;
  #needDrain = false;
  #sent = 0;

  /** Bytes that wait. */
  get pending(): number {
    return this.#queue.length;
  }

  /** Bytes of data that left in frames. */
  get sent(): number {
    return this.#sent;
  }

  /** True when something waits that the peer's credit allows. */
  get ready(): boolean {
    return this.#queue.length > 0 && this.#credit > 0;
  }

  /** The peer gives credit; throws when it heaps up too much. */
  credit(bytes: number): void {
    this.#credit += bytes;
    if (this.#credit > MAX_CREDIT) throw protocolError('credit over 2^31');
  }

  /** Puts bytes into the current message as far as they may go, and keeps the rest. `outbox`: undefined, nothing may. */
  write(bytes: Uint8Array, outbox: Outbox | undefined, stream: number): void {
    let taken = 0;
    if (outbox !== undefined && this.#queue.length === 0 && this.#credit > 0) {
      taken = this.#writeThrough(bytes, outbox, stream);
    }
    if (taken < bytes.length) this.#queue.push(bytes, taken);
  }

  #writeThrough(bytes: Uint8Array, outbox: Outbox, stream: number): number {
    if (this.#turn !== outbox.turn) {
      this.#turn = outbox.turn;
      this.#turnBytes = 0;
    }
    const light = this.#turnBytes + bytes.length <= LIGHT;
    if (!light && outbox.contended) return 0;
    const count = outbox.data(stream, bytes, Math.min(bytes.length, this.#credit), light);
    this.#credit -= count;
    this.#turnBytes += count;
    this.#sent += count;
    return count;
  }

  /** True while the owner may write on; otherwise it is told when everything has gone. */
  hasRoom(): boolean {
    if (this.#queue.length < HIGH_WATER) return true;
    this.#needDrain = true;
    return false;
  }

  /** Sends at most about `quantum` bytes of what waits; false when it could go on but found no room. */
  serve(outbox: Outbox, stream: number, quantum: number): boolean {
    let left = quantum;
    while (this.#queue.length > 0 && this.#credit > 0) {
      if (left <= 0) return false;
      const run = this.#queue.peek(Math.min(left, this.#credit))!;
      const count = outbox.data(stream, run, run.length, false);
      if (count === 0) return false;
      this.#queue.skip(count);
      this.#credit -= count;
      this.#sent += count;
      left -= count;
    }
    return true;
  }

  /** True, once, when everything went after the owner was told to stop. */
  takeDrain(): boolean {
    const due = this.#needDrain && this.#queue.length === 0;
    if (due) this.#needDrain = false;
    return due;
  }

  clear(): void {
    this.#queue.clear();
  }
}
