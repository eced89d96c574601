import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import { type EndReason, resetCode } from '../model/connection.ts';

/** How a relayed connection ended, and whose end it was. */
export interface RelayEnd {
  readonly reason: EndReason;
  readonly detail: string | undefined;
}

/** One direction: what `from` delivers goes to `to`. Also relieves the other direction when `from` drains. */
class Half implements ChannelHandler {
  bytes = 0;
  ended = false;
  closed = false;
  readonly #from: Channel;
  readonly #to: Channel;
  readonly #onClose: (half: Half, why: ChannelClose) => void;

  constructor(from: Channel, to: Channel, onClose: (half: Half, why: ChannelClose) => void) {
    this.#from = from;
    this.#to = to;
    this.#onClose = onClose;
  }

  data(bytes: Uint8Array, more?: boolean): void {
    this.bytes += bytes.length;
    if (!this.#to.write(bytes, more)) this.#from.pause();
  }

  end(): void {
    this.ended = true;
    this.#to.end();
  }

  drain(): void {
    this.#to.resume();
  }

  close(why: ChannelClose): void {
    this.closed = true;
    this.#onClose(this, why);
  }
}

/**
 * Two independent halves, and an end when both channels are over. A half-close ends its own direction only; a reset
 * or a failure of one side is passed on to the other as a reset, never as a clean end.
 */
export class Relay {
  readonly #client: Half;
  readonly #upstream: Half;
  readonly #channels: readonly [Channel, Channel];
  readonly #onEnd: (end: RelayEnd) => void;
  #end: RelayEnd | undefined;

  /** Takes both channels over; the caller resumes them. */
  constructor(client: Channel, upstream: Channel, onEnd: (end: RelayEnd) => void) {
    this.#channels = [client, upstream];
    this.#onEnd = onEnd;
    const closed = (half: Half, why: ChannelClose) => this.#closed(half, why);
    this.#client = new Half(client, upstream, closed);
    this.#upstream = new Half(upstream, client, closed);
    client.handler = this.#client;
    upstream.handler = this.#upstream;
  }

  /** From the client to the upstream. */
  get bytesSent(): number {
    return this.#client.bytes;
  }

  /** From the upstream to the client. */
  get bytesReceived(): number {
    return this.#upstream.bytes;
  }

  /** True when exactly one side has said that it is finished. */
  get halfClosed(): boolean {
    return this.#client.ended !== this.#upstream.ended;
  }

  /** Counts bytes and the end that reached the client's handler before the relay took over. */
  account(sent: number, ended: boolean): void {
    this.#client.bytes += sent;
    this.#client.ended ||= ended;
  }

  /** Resets both sides; `reason` is what is written down. */
  abort(end: RelayEnd): void {
    this.#end ??= end;
    for (const channel of this.#channels) channel.reset(resetCode(end.reason));
  }

  #closed(half: Half, why: ChannelClose): void {
    const [client, upstream] = this.#channels;
    const isClient = half === this.#client;
    if (why.reason !== 'done' && why.reason !== 'local') {
      const reason = isClient && why.reason === 'reset' ? 'client-reset' : why.reason;
      this.#end ??= { reason, detail: why.detail };
      const other = isClient ? this.#upstream : this.#client;
      if (!other.closed) (isClient ? upstream : client).reset(why.reason);
    }
    if (this.#client.closed && this.#upstream.closed) {
      this.#onEnd(this.#end ?? { reason: 'done', detail: undefined });
    }
  }
}
