import { Duplex } from 'node:stream';
import { MeshError } from '../model/errors.ts';
import type { Channel, ChannelClose } from './channel.ts';

/**
 * How long a destroyed stream whose own half was ended cleanly may take to get its last bytes out and to see the
 * other side's end. node:tls destroys its stream right after it wrote close_notify.
 */
const LINGER_MS = 5000;

type Callback = (error?: Error | null) => void;

/**
 * A node:stream over a channel, for the libraries that want one (node:tls inside a relay stream). On an ordinary
 * TCP connection use a `net.Socket` instead: the stream costs a third more.
 * Backpressure goes both ways; `end` is a half-close; `destroy` before the own half has ended, or with an error, is
 * a reset.
 */
export class ChannelDuplex extends Duplex {
  readonly #channel: Channel;
  /** Callback of the write that waits for `drain`. */
  #written: Callback | undefined;
  #closed = false;

  constructor(channel: Channel) {
    super({ allowHalfOpen: true });
    this.#channel = channel;
    channel.handler = {
      // The bytes are the channel's and valid only during this call.
      data: (bytes) => {
        if (!this.destroyed && !this.push(Buffer.from(bytes))) channel.pause();
      },
      end: () => {
        if (!this.destroyed) this.push(null);
      },
      drain: () => this.#release(null),
      close: (why) => this.#onClose(why),
    };
  }

  override _read(): void {
    this.#channel.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    if (this.#channel.write(chunk)) callback();
    else this.#written = callback;
  }

  override _final(callback: Callback): void {
    this.#channel.end();
    callback();
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    if (!this.#closed) {
      if (error === null && this.writableFinished) this.#linger();
      else this.#channel.reset();
    }
    this.#release(error);
    callback(error);
  }

  #release(error: Error | null): void {
    const written = this.#written;
    this.#written = undefined;
    written?.(error);
  }

  #onClose(why: ChannelClose): void {
    this.#closed = true;
    if (why.reason === 'done') return; // both halves ended: the stream destroys itself when its reader got there
    const { reason } = why;
    if (reason === 'local') this.destroy();
    else this.destroy(new MeshError(reason, 'peer', why.detail ?? `stream closed: ${reason}`));
  }

  /** Nobody listens any more, but what was written still goes out. */
  #linger(): void {
    const channel = this.#channel;
    const timer = setTimeout(() => channel.reset(), LINGER_MS);
    channel.handler = {
      data() {},
      end() {},
      drain() {},
      close: () => clearTimeout(timer),
    };
    channel.resume();
  }
}
