import { type Channel, type ChannelClose, type ChannelHandler, noHandler } from '../io/channel.ts';
import type { ErrorCode } from '../model/errors.ts';
import type { Candidate } from './candidate.ts';

/** What a candidate did that kept everybody waiting until another one opened. */
const OVERTAKEN: ChannelClose = {
  reason: 'timeout',
  delivered: false,
  source: 'peer',
  detail: 'no answer in time; another one was faster',
};

/** A candidate that has neither opened nor closed. */
interface Pending {
  readonly candidate: Candidate;
  /** Its patience is over. */
  late: boolean;
}

/**
 * The first of several channels that opens, as one. A candidate is made when those before it have failed without having
 * delivered anything, or when their patience is over: then they race, as in RFC 8305, so nobody has to know whether
 * one is slow or gone. Bytes written meanwhile wait here and go to the one that opened, and to no other.
 */
export class FirstChannel implements Channel {
  handler: ChannelHandler = noHandler;
  readonly #candidates: Iterator<Candidate>;
  #pending: Pending[] = [];
  /** The one that opened. */
  #winner: Channel | undefined;
  #over = false;
  #timer: NodeJS.Timeout | undefined;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #ended = false;
  #paused = true;

  /** `none`: why it closes when there is no candidate at all. */
  constructor(candidates: Iterator<Candidate>, none: ChannelClose) {
    this.#candidates = candidates;
    this.#next(none);
  }

  get pendingBytes(): number {
    return this.#waitingBytes + (this.#winner?.pendingBytes ?? 0);
  }

  write(bytes: Uint8Array): boolean {
    if (this.#winner !== undefined) return this.#winner.write(bytes);
    if (this.#over || this.#ended) return true;
    this.#waiting.push(Uint8Array.prototype.slice.call(bytes));
    this.#waitingBytes += bytes.length;
    return false;
  }

  end(): void {
    this.#ended = true;
    this.#winner?.end();
  }

  reset(code?: ErrorCode): void {
    if (this.#over) return;
    if (this.#winner !== undefined) {
      this.#winner.reset(code);
      return;
    }
    this.#over = true;
    clearTimeout(this.#timer);
    for (const { candidate } of this.#pending.splice(0)) candidate.channel.reset(code);
    queueMicrotask(() => this.handler.close({ reason: 'local', delivered: false }));
  }

  pause(): void {
    this.#paused = true;
    this.#winner?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#winner?.resume();
  }

  /** Tries one more; `failure`: what it comes to when there is none, and nobody is waited for. */
  #next(failure: ChannelClose): void {
    clearTimeout(this.#timer);
    const { value: candidate, done } = this.#candidates.next();
    if (done === true) {
      if (this.#pending.length > 0) return;
      this.#over = true;
      queueMicrotask(() => this.handler.close(failure));
      return;
    }
    const pending: Pending = { candidate, late: false };
    this.#pending.push(pending);
    this.#listen(pending);
    const { patience } = candidate;
    if (patience === undefined) return;
    const late = (): void => {
      pending.late = true;
      this.#next(OVERTAKEN);
    };
    if (patience <= 0) late();
    else this.#timer = setTimeout(late, patience);
  }

  #listen(pending: Pending): void {
    const { channel } = pending.candidate;
    channel.handler = {
      open: () => this.#opened(pending),
      data: (bytes) => this.handler.data(bytes),
      end: () => this.handler.end(),
      drain: () => this.handler.drain(),
      close: (why) => {
        if (this.#winner === channel) {
          this.#over = true;
          this.handler.close(why);
        } else if (this.#pending.includes(pending)) {
          this.#pending = this.#pending.filter((other) => other !== pending);
          pending.candidate.failed?.(why);
          this.#next(why);
        }
      },
    };
  }

  #opened(pending: Pending): void {
    if (!this.#pending.includes(pending)) return;
    clearTimeout(this.#timer);
    const { channel } = pending.candidate;
    this.#winner = channel;
    for (const other of this.#pending.splice(0)) {
      if (other === pending) continue;
      if (other.late) other.candidate.failed?.(OVERTAKEN);
      other.candidate.channel.reset('timeout');
    }
    pending.candidate.opened?.();
    this.#start(channel);
  }

  /** What waited goes out, and its owner is told. */
  #start(channel: Channel): void {
    const waited = this.#waitingBytes > 0;
    let room = true;
    for (const bytes of this.#waiting) room = channel.write(bytes);
    this.#waiting = [];
    this.#waitingBytes = 0;
    if (this.#ended) channel.end();
    if (!this.#paused) channel.resume();
    this.handler.open?.();
    // Whoever was told to wait before it opened hears of it now; the channel itself tells when it has no room.
    if (waited && room) this.handler.drain();
  }
}
