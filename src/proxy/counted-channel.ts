import { type Channel, type ChannelHandler, noHandler } from '../io/channel.ts';
import type { ErrorCode } from '../model/errors.ts';

/** A channel that says when it is over, whoever owns it by then. Only what is counted goes through one. */
export class CountedChannel implements Channel {
  handler: ChannelHandler = noHandler;
  readonly #channel: Channel;

  constructor(channel: Channel, over: () => void) {
    this.#channel = channel;
    channel.handler = {
      open: () => this.handler.open?.(),
      data: (bytes, more) => this.handler.data(bytes, more),
      end: () => this.handler.end(),
      drain: () => this.handler.drain(),
      close: (why) => {
        over();
        this.handler.close(why);
      },
    };
  }

  get pendingBytes(): number {
    return this.#channel.pendingBytes;
  }

  write(bytes: Uint8Array, more?: boolean): boolean {
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
