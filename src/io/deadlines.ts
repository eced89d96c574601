import { DenseSet, type DenseSetMember } from '../model/dense-set.ts';

/** How often deadlines are looked at, in milliseconds: they are late by at most this. */
const SWEEP_INTERVAL_MS = 100;

/** Something that must not take longer than until its deadline. */
export interface Deadline extends DenseSetMember {
  /** On the clock of `performance.now()`. */
  readonly deadline: number;
  /** The time is over. Called once; the item has been deleted. */
  expired(): void;
}

/**
 * Coarse timers for things that almost always end in time: adding and deleting are set operations without
 * allocation, and one timer runs only while something waits.
 */
export class Deadlines {
  readonly #waiting = new DenseSet<Deadline>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  add(item: Deadline): void {
    if (this.#closed) return;
    this.#waiting.add(item);
    this.#timer ??= setInterval(() => this.#sweep(), SWEEP_INTERVAL_MS);
  }

  /** True while the item waits. */
  has(item: Deadline): boolean {
    return this.#waiting.has(item);
  }

  delete(item: Deadline): void {
    this.#waiting.delete(item);
  }

  /** Calls `expired` once, after at least this time; the answer takes it back. */
  after(milliseconds: number, expired: () => void): () => void {
    const item = { deadline: performance.now() + milliseconds, place: -1, expired };
    this.add(item);
    return () => this.#waiting.delete(item);
  }

  close(): void {
    this.#closed = true;
    this.#waiting.clear();
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #sweep(): void {
    const now = performance.now();
    for (const item of this.#waiting.values()) {
      if (item.deadline > now || !this.#waiting.has(item)) continue;
      this.#waiting.delete(item);
      item.expired();
    }
    if (this.#waiting.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
