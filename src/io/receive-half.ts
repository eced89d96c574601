import type { ChannelHandler } from './channel.ts';
import * as c from './constants.ts';
import * as libc from './libc.ts';
import { INTEREST_STREAM, type Poller } from './poller.ts';

/** Bytes asked for in one `recv` at first; doubled after each full one, back to this after backpressure. */
const FIRST_READ_BYTES = 64 << 10;
/** With more than this held for slow readers over all sockets, every socket reads {@link FRUGAL_READ_BYTES} at most. */
const HELD_BYTES_SOFT_LIMIT = 64 << 20;
const FRUGAL_READ_BYTES = 16 << 10;
/** Bound on `recv` calls of one socket in one turn, so that a bulk transfer does not keep the others waiting. */
const READS_PER_TURN = 4;

/** The socket that a receiving half belongs to. */
interface Receiver {
  readonly fd: number;
  readonly handler: ChannelHandler;
  /** The owner was told of the other side's end. */
  endDelivered(): void;
  /** `recv` failed with this errno. */
  receiveFailed(errno: number): void;
  /** The owner threw this when it was told something outside of `ready`; it is rethrown. */
  failed(error: unknown): void;
}

/** Reads a socket for its owner, while that wants it and the kernel has something. */
export class ReceiveHalf {
  /** Bytes handed to the owner. */
  received = 0;
  readonly #receiver: Receiver;
  readonly #poller: Poller;
  #paused = true;
  /** The kernel may have bytes, an end or an error for us. False for good when the socket is over. */
  #readable = false;
  /** A short read does not mean that nothing is left: FIN is known to be there, or urgent data was seen. */
  #toTheEnd = false;
  /** The other side has sent its FIN: after the bytes that are left, `recv` gives 0. */
  #finArrived = false;
  /** Sending failed: what `recv` takes for an end is none. */
  #endless = false;
  #size = FIRST_READ_BYTES;
  #reading = false;
  #ended = false;
  #resumeTask: (() => void) | undefined;

  constructor(receiver: Receiver, poller: Poller) {
    this.#receiver = receiver;
    this.#poller = poller;
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** The owner knows that nothing more comes. */
  get ended(): boolean {
    return this.#ended;
  }

  pause(): void {
    this.#paused = true;
    this.#size = FIRST_READ_BYTES;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (!this.#readable || this.#reading) return;
    this.#resumeTask ??= () => this.#readInTask();
    this.#poller.afterBatch(this.#resumeTask);
  }

  /** The kernel reported more than room to write. */
  ready(events: number): void {
    this.#readable = true;
    if ((events & ~(c.EPOLLOUT | c.EPOLLIN)) !== 0) this.#toTheEnd = true;
    if ((events & (c.EPOLLRDHUP | c.EPOLLERR)) === c.EPOLLRDHUP) this.#finArrived = true;
    if (!this.#paused) this.#read();
  }

  /** Sending failed: from now on no end is told, for it would be none. */
  disregardEnd(): void {
    this.#endless = true;
  }

  /** Reads what is there, the kernel's word or not, if the owner takes it. */
  readRest(): void {
    this.#readable = true;
    this.#toTheEnd = true;
    this.#readInTask();
  }

  /** The socket is over: nothing is read any more. */
  close(): void {
    this.#readable = false;
  }

  #read(): void {
    const { readBuffer } = this.#poller;
    const { fd } = this.#receiver;
    this.#reading = true;
    try {
      for (let reads = 0; !this.#paused && this.#readable; reads++) {
        if (reads === READS_PER_TURN) {
          this.#poller.modify(fd, INTEREST_STREAM); // reported again, after the others
          break;
        }
        const size = this.#poller.heldBytes > HELD_BYTES_SOFT_LIMIT ? FRUGAL_READ_BYTES : this.#size;
        const count = libc.recv(fd, readBuffer, size, 0);
        if (count > 0) {
          // The socket was emptied. What comes later is a new event.
          if (count < size) this.#readable = this.#toTheEnd;
          else if (this.#size < readBuffer.length) this.#size *= 2;
          this.received += count;
          this.#receiver.handler.data(this.#poller.readBytes(count), this.#finArrived && !this.#endless);
        } else if (count === 0) {
          this.#readable = false;
          if (!this.#endless) this.#deliverEnd();
        } else {
          const errno = libc.errno();
          if (errno === c.EINTR) continue;
          this.#readable = false;
          if (errno !== c.EAGAIN) this.#receiver.receiveFailed(errno);
        }
      }
    } finally {
      this.#reading = false;
    }
  }

  #deliverEnd(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#receiver.handler.end();
    this.#receiver.endDelivered();
  }

  /** Reads outside of `ready`: what the owner throws costs the connection here as well. */
  #readInTask(): void {
    if (this.#paused || !this.#readable) return;
    try {
      this.#read();
    } catch (error) {
      this.#receiver.failed(error);
      throw error;
    }
  }
}
