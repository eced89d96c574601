import { type Channel, type ChannelHandler, noHandler } from '../io/channel.ts';
import type { ErrorCode } from '../model/errors.ts';

/** Who sees what goes over a channel. May keep none of the bytes. */
export interface Tap {
  /** Read from the channel. */
  fromCaller(bytes: Uint8Array): void;
  /** Written to it. */
  fromService(bytes: Uint8Array): void;
  /** The channel is over. */
  close(): void;
}

/** A caller's channel as it is, with somebody who sees the bytes of both directions. */
export class TappedChannel implements Channel {
  handler: ChannelHandler = noHandler;
  readonly #channel: Channel;
  readonly #tap: Tap;

  /** Takes the channel's handler over; its owner sets its own here. */
  constructor(channel: Channel, tap: Tap) {
    this.#channel = channel;
    this.#tap = tap;
    channel.handler = {
      open: () => this.handler.open?.(),
      data: (bytes, more) => {
        tap.fromCaller(bytes);
        this.handler.data(bytes, more);
      },
      end: () => this.handler.end(),
      drain: () => this.handler.drain(),
      close: (why) => {
        tap.close();
        this.handler.close(why);
      },
    };
  }

  get pendingBytes(): number {
    return this.#channel.pendingBytes;
  }

  write(bytes: Uint8Array, more?: boolean): boolean {
    this.#tap.fromService(bytes);
    return this.#channel.write(bytes, more);
  }

  end(): void {
    this.#channel.end();
  }

  reset(code?: ErrorCode): void {
    this.#channel.reset(code);
  }

  pause(): void {
    this.#channel.pause();
  }

  resume(): void {
    this.#channel.resume();
  }
}
