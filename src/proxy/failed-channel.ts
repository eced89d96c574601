import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';

const nobody: ChannelHandler = { data() {}, end() {}, drain() {}, close() {} };

/** A channel that could not even be tried: it closes at the next turn, like any other that fails to open. */
export class FailedChannel implements Channel {
  handler: ChannelHandler = nobody;
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
