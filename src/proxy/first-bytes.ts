import type { Sniffer, Spoken } from '../detection/sniffer.ts';
import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import type { Begun } from './protocols.ts';

/** How looking at first bytes came to an end: by what they are, by time, or by the caller's end before that. */
export type Seen = Spoken | { readonly protocol: 'timeout' | 'ended' };

/** Who wants to know. Exactly one call, unless `stop` comes before it. */
export interface FirstBytesListener {
  /** What the caller speaks; it is paused. */
  seen(what: Seen): void;
  /** The caller's channel is over. */
  gone(why: ChannelClose): void;
}

/** Holds a caller's first bytes until it is known what they are. Nothing is sent anywhere. */
export class FirstBytes implements ChannelHandler {
  readonly #client: Channel;
  readonly #sniffer: Sniffer;
  readonly #after: (milliseconds: number, expired: () => void) => () => void;
  readonly #timeout: number;
  readonly #listener: FirstBytesListener;
  readonly #bytes: Uint8Array[] = [];
  #ended = false;
  #over = false;
  #takeBack: (() => void) | undefined;

  /** Takes the caller's channel over. `timeout`: bound on holding bytes, in ms. */
  constructor(
    client: Channel,
    sniffer: Sniffer,
    timeout: number,
    after: (milliseconds: number, expired: () => void) => () => void,
    listener: FirstBytesListener,
  ) {
    this.#client = client;
    this.#sniffer = sniffer;
    this.#timeout = timeout;
    this.#after = after;
    this.#listener = listener;
    client.handler = this;
  }

  /** What there is so far, for whoever carries the connection from now on. */
  get begun(): Begun {
    return { bytes: this.#bytes, ended: this.#ended };
  }

  /** Reads, after what was read before. The listener may be told before this returns, where that is enough. */
  start(begun?: Begun): void {
    this.#client.resume();
    if (begun === undefined) return;
    this.#bytes.push(...begun.bytes);
    this.#ended = begun.ended;
    for (const bytes of begun.bytes) {
      const spoken = this.#sniffer.push(bytes);
      if (spoken === undefined) continue;
      this.#settle(spoken);
      return;
    }
    if (begun.ended) this.#settle({ protocol: 'ended' });
    else if (begun.bytes.length > 0) this.expire();
  }

  /** Bounds the time from now on, unless it is bounded already. The first byte does so by itself. */
  expire(): void {
    if (this.#over) return;
    this.#takeBack ??= this.#after(this.#timeout, () => this.#settle({ protocol: 'timeout' }));
  }

  /** It is known from elsewhere what to do with the connection. */
  stop(): void {
    this.#over = true;
    this.#takeBack?.();
    this.#client.pause();
  }

  data(bytes: Uint8Array): void {
    this.#bytes.push(Uint8Array.prototype.slice.call(bytes));
    const spoken = this.#sniffer.push(bytes);
    if (spoken === undefined) this.expire();
    else this.#settle(spoken);
  }

  end(): void {
    this.#ended = true;
    this.#settle({ protocol: 'ended' });
  }

  drain(): void {}

  close(why: ChannelClose): void {
    this.stop();
    this.#listener.gone(why);
  }

  #settle(what: Seen): void {
    this.stop();
    this.#listener.seen(what);
  }
}
