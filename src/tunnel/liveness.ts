import { Keepalive } from './keepalive.ts';
import type { Outbox } from './outbox.ts';

/** A peer that was silent for this long may be gone, in ms. */
const QUIET_AFTER = 1000;
/** So may one that owes the answer to a PING for this long, in ms, and for two round trips. */
const OWED_QUIET = 250;

/** What was heard of a peer. */
interface Heard {
  /** All that ever arrived. */
  readonly bytesIn: number;
  /** When bytes came last, on the clock of `performance.now()`. */
  readonly heardAt: number;
}

/** Whether the peer of a session lives: what it owes, and when it is asked. PINGs are those of the outbox's pacer. */
export class Liveness {
  readonly #outbox: Outbox;
  readonly #heard: Heard;
  readonly #lost: (detail: string) => void;
  readonly #keepalive = new Keepalive();
  #probing = false;

  /** `lost`: it does not. */
  constructor(outbox: Outbox, heard: Heard, lost: (detail: string) => void) {
    this.#outbox = outbox;
    this.#heard = heard;
    this.#lost = lost;
  }

  /** For how long, in ms, the peer has owed the answer to a PING without a byte of anything; 0 while it owes none. */
  get silence(): number {
    const since = this.#outbox.pacer.owedSince;
    return since === undefined ? 0 : Math.max(0, performance.now() - Math.max(since, this.#heard.heardAt));
  }

  /** The peer may be gone without our knowing. */
  get quiet(): boolean {
    if (performance.now() - this.#heard.heardAt > QUIET_AFTER) return true;
    return this.silence > Math.max(OWED_QUIET, 2 * (this.#outbox.pacer.minRtt ?? 0));
  }

  /** It has been asked to prove that it lives. */
  get probing(): boolean {
    return this.#probing;
  }

  /** Sends a PING, unless one is under way or the last one is not older than `age` ms. */
  pingAfter(age: number, now: number): void {
    const { pacer } = this.#outbox;
    if (!pacer.markPending && now - pacer.markedTime > age) this.#outbox.ping(now);
  }

  /** Asks for a sign of life; without one within `timeout` ms the peer is lost. One probe at a time. */
  probe(timeout: number): void {
    if (this.#probing) return;
    this.#probing = true;
    const before = this.#heard.bytesIn;
    this.#outbox.ping(performance.now());
    const judge = (): void => {
      this.#probing = false;
      if (this.#heard.bytesIn === before) this.#lost('no answer to a probe');
    };
    // When this process itself was held up, the answer is there already and is read before it judges.
    setTimeout(() => setImmediate(judge), timeout).unref();
  }

  /** Once in each keepalive interval. */
  tick(now: number): void {
    const verdict = this.#keepalive.check(this.#heard.bytesIn);
    if (verdict === 'ask') this.#outbox.ping(now);
    else if (verdict === 'lost') this.#lost('two keepalives were not answered');
  }
}
