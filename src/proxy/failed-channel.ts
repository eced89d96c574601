import { type Channel, type ChannelClose, type ChannelHandler, noHandler } from '../io/channel.ts';

/** A channel that could not even be tried: it closes at the next turn, like any other that fails to open. */
export class FailedChannel implements Channel {
  handler: ChannelHandler = noHandler;
  readonly pendingBytes = 0;
  #why: ChannelClose;

  constructor(why: ChannelClose) {
    this.#why = why;
    queueMicrotask(() => this.handler.close(this.#why));
  }

  write(): boolean {
    return true;
  }

  end(): void {}

  reset(): void {
    this.#why = { reason: 'local', delivered: false };
  }

  pause(): void {}

  resume(): void {}
}
