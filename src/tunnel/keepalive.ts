/** Silent intervals with an unanswered PING after which a peer is lost. */
const MAX_MISSED = 2;

/** What a silent peer is met with. */
type Verdict = 'alive' | 'ask' | 'lost';

/** Decides, once in each keepalive interval, whether a peer has to be asked for a sign of life, or is gone. */
export class Keepalive {
  #seen = -1;
  #missed = 0;

  /** `bytesIn`: all that ever arrived. */
  check(bytesIn: number): Verdict {
    if (bytesIn !== this.#seen) {
      this.#seen = bytesIn;
      this.#missed = 0;
      return 'alive';
    }
    if (this.#missed >= MAX_MISSED) return 'lost';
    this.#missed++;
    return 'ask';
  }
}
