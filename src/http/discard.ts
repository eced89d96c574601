import type { HttpRefusal } from '../http1/refusal.ts';
import type { ResponseHead } from '../http1/response-head.ts';
import type { Upstream, UpstreamUser } from './upstream.ts';
import type { UpstreamPool } from './upstream-pool.ts';

/** Content that is read for the sake of its channel; a new channel costs more than this, and less than anything larger. */
const MAX_DISCARDED = 16 << 10;
/** A server has this long to send it, in ms. */
const WITHIN_MS = 1000;

/** Reads the rest of an answer that nobody wants, within bounds, so that its channel can carry another request. */
export class Discard implements UpstreamUser {
  readonly #upstream: Upstream;
  readonly #pool: UpstreamPool;
  readonly #inTime: () => void;
  #bytes = 0;
  #over = false;

  private constructor(upstream: Upstream, pool: UpstreamPool, after: After) {
    this.#upstream = upstream;
    this.#pool = pool;
    this.#inTime = after(WITHIN_MS, () => this.#giveUp());
  }

  /** Takes the channel over, while `head` is told, from an exchange that has sent all of its request. */
  static take(upstream: Upstream, { framing }: ResponseHead, pool: UpstreamPool, after: After): void {
    const { kind } = framing;
    if (kind === 'close' || kind === 'opaque' || (kind === 'length' && framing.length > MAX_DISCARDED)) {
      upstream.release();
      upstream.channel.reset();
    } else upstream.handOver(new Discard(upstream, pool, after));
  }

  answerHead(): void {}

  answerContent(piece: Uint8Array): void {
    this.#bytes += piece.length;
    if (this.#bytes > MAX_DISCARDED) this.#giveUp();
  }

  answerEnd(): void {
    if (!this.#settle()) return;
    this.#upstream.release();
    this.#pool.put(this.#upstream);
  }

  answerRead(): void {}
  upstreamDrained(): void {}
  upstreamSwitched(): void {}

  upstreamRefused(_refusal: HttpRefusal): void {
    this.#settle();
  }

  upstreamLost(): void {
    this.#settle();
  }

  #giveUp(): void {
    if (!this.#settle()) return;
    this.#upstream.release();
    this.#upstream.channel.reset();
  }

  #settle(): boolean {
    if (this.#over) return false;
    this.#over = true;
    this.#inTime();
    return true;
  }
}

type After = (milliseconds: number, expired: () => void) => () => void;
