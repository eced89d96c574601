/** So many foreign removals … */
const FLUSHES_RESPECTED = 3;
/** … within this time (ms), and we stay out. */
const FLUSH_WINDOW_MS = 60_000;

/** Counts how often others took our rules away: who does it again and again means it. */
export class FlushWatch {
  readonly #now: () => number;
  #seen: number[] = [];

  /** `now`: milliseconds that only grow. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Counts one more removal; true when it is one too many. */
  isOneTooMany(): boolean {
    const now = this.#now();
    this.#seen = [...this.#seen.filter((at) => now - at < FLUSH_WINDOW_MS), now];
    return this.#seen.length >= FLUSHES_RESPECTED;
  }
}
