import type { RequestHead } from '../http1/request-head.ts';
import type { Channel } from '../io/channel.ts';
import type { ExchangeOwner } from './exchange-owner.ts';

/**
 * A request on its way out: what there is of it is written to the channel of each attempt, what comes follows, and its
 * content is kept for as long as there may be another attempt.
 */
export class Outgoing {
  /** All of it has come. */
  done = false;
  readonly #owner: ExchangeOwner;
  readonly #text: string;
  readonly #chunked: boolean;
  /** Most content that is kept, in bytes. */
  readonly #most: number;
  #trailers = '';
  /** Copies of the content; undefined: there is none so far. */
  #kept: Uint8Array[] | undefined;
  #keptBytes = 0;
  /** Nothing is kept any more: what was sent cannot be sent again. */
  #final = false;
  /** A channel takes it. */
  #sending = false;
  /** An instance has been found. */
  #taken = false;

  /** `text`: the head as it is sent on. */
  constructor({ framing }: RequestHead, text: string, owner: ExchangeOwner, most: number) {
    this.#text = text;
    this.#chunked = framing.kind === 'chunked';
    this.#owner = owner;
    this.#most = most;
  }

  /** All that has come so far is there to be sent again. */
  get repeatable(): boolean {
    return !this.#final;
  }

  // As it comes.

  /** A piece of its content; a view. */
  content(piece: Uint8Array): void {
    if (!this.#final) this.#keep(piece);
    if (this.#sending) this.#owner.requests.content(piece);
  }

  /** It is complete. `trailers`: lines. */
  end(trailers: string): void {
    this.done = true;
    this.#trailers = trailers;
    if (this.#sending) this.#owner.requests.end(trailers);
  }

  /** What was told is all for now. */
  flush(): void {
    if (!this.#sending) return;
    const { requests, client } = this.#owner;
    requests.flush();
    if (requests.blocked && this.#taken && !this.done) client.pause();
  }

  /** The channel takes more. */
  drained(): void {
    const { requests, client } = this.#owner;
    requests.blocked = false;
    if (!this.done) client.resume();
  }

  /** One read may pass the bound while no instance takes it: then the caller is paused. */
  #keep(piece: Uint8Array): void {
    this.#keptBytes += piece.length;
    if (this.#taken && this.#keptBytes > this.#most) {
      this.forget();
      return;
    }
    this.#kept ??= [];
    this.#kept.push(Uint8Array.prototype.slice.call(piece));
    if (!this.#taken && this.#keptBytes >= this.#most) this.#owner.client.pause();
  }

  // As it goes.

  /** Writes what there is of it, and from now on what comes. */
  send(channel: Channel): void {
    const { requests, reading } = this.#owner;
    this.#sending = true;
    requests.begin(channel, this.#text, this.#chunked);
    if (this.#kept !== undefined) for (const piece of this.#kept) requests.content(piece);
    if (this.done) requests.end(this.#trailers);
    else if (!reading) requests.flush();
  }

  /** Its channel leads to an instance that was reached. `repeatable`: another one may be asked all the same. */
  taken(repeatable: boolean): void {
    this.#taken = true;
    if (!repeatable || this.#keptBytes > this.#most) this.forget();
    if (!this.done) this.#owner.client.resume();
  }

  /** Its channel is no more; `waits`: there is no other yet, and nothing can be done with what the caller sends. */
  stop(): void {
    this.#sending = false;
    this.#taken = false;
  }

  /** No other attempt follows. */
  forget(): void {
    this.#final = true;
    this.#kept = undefined;
  }
}
