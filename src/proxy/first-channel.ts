import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import type { ErrorCode } from '../model/errors.ts';
import type { Candidate } from './candidate.ts';

const nobody: ChannelHandler = { data() {}, end() {}, drain() {}, close() {} };

/**
 * The first of several channels that opens, as one. Candidates are made one after the other, when the one before has
 * failed without having delivered anything; bytes written meanwhile wait here and go to the one that opened.
 */
export class FirstChannel implements Channel {
  handler: ChannelHandler = nobody;
  readonly #candidates: Iterator<Candidate>;
  #current: Channel | undefined;
  #open = false;
  #over = false;
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
    return this.#waitingBytes + (this.#open ? (this.#current?.pendingBytes ?? 0) : 0);
  }

  write(bytes: Uint8Array): boolean {
    if (this.#open) return this.#current!.write(bytes);
    if (this.#over || this.#ended) return true;
    this.#waiting.push(Uint8Array.prototype.slice.call(bytes));
    this.#waitingBytes += bytes.length;
    return false;
  }

  end(): void {
    this.#ended = true;
    if (this.#open) this.#current!.end();
  }

  reset(code?: ErrorCode): void {
    if (this.#over) return;
    if (this.#open) {
      this.#current!.reset(code);
      return;
    }
    this.#over = true;
    this.#current?.reset(code);
    queueMicrotask(() => this.handler.close({ reason: 'local', delivered: false }));
  }

  pause(): void {
    this.#paused = true;
    if (this.#open) this.#current!.pause();
  }

  resume(): void {
    this.#paused = false;
    if (this.#open) this.#current!.resume();
  }

  #next(failure: ChannelClose): void {
    const { value: candidate, done } = this.#candidates.next();
    if (done === true) {
      this.#over = true;
      queueMicrotask(() => this.handler.close(failure));
      return;
    }
    const { channel } = candidate;
    this.#current = channel;
    channel.handler = {
      open: () => {
        candidate.opened?.();
        this.#opened(channel);
      },
      data: (bytes) => this.handler.data(bytes),
      end: () => this.handler.end(),
      drain: () => this.handler.drain(),
      close: (why) => {
        if (this.#open) {
          this.#over = true;
          this.handler.close(why);
        } else if (!this.#over) {
          candidate.failed?.(why);
          this.#next(why);
        }
      },
    };
  }

  #opened(channel: Channel): void {
    if (this.#over) return;
    this.#open = true;
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
