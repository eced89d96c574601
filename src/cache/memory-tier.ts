import { LRUCache } from 'lru-cache';

/** An answer as it is remembered; `undefined` as value: the registries answered that nobody knows. */
export interface Remembered<V> {
  readonly value: V | undefined;
  /** When a registry gave it, milliseconds since the epoch. */
  readonly at: number;
}

/**
 * How old an answer is, in terms of what may be done with it: `fresh` is used as it is, `stale` is used while a new
 * one is fetched, `expired` only when no registry answers.
 */
type Freshness = 'fresh' | 'stale' | 'expired';

export interface FreshnessOptions {
  /** Milliseconds, all of them, counted from the answer. */
  readonly freshFor: number;
  readonly staleFor: number;
  /** "Nobody knows" is fresh for this long, and then expired at once: it is never used in place of a new question. */
  readonly negativeFor: number;
}

/** What may be done with an answer now. A clock that was set back makes an answer expired, not fresh for years. */
export function freshness(answer: Remembered<unknown>, options: FreshnessOptions, now: number): Freshness {
  const age = now - answer.at;
  if (age < 0) return 'expired';
  if (answer.value === undefined) return age < options.negativeFor ? 'fresh' : 'expired';
  return age < options.freshFor ? 'fresh' : age < options.staleFor ? 'stale' : 'expired';
}

/** Answers in memory, bounded by their number: the one that was used longest ago makes room. */
export class MemoryTier<V> {
  readonly #answers: LRUCache<string, Remembered<V>>;

  constructor(options: { readonly entries: number }) {
    this.#answers = new LRUCache({ max: options.entries });
  }

  get size(): number {
    return this.#answers.size;
  }

  get(key: string): Remembered<V> | undefined {
    return this.#answers.get(key);
  }

  set(key: string, answer: Remembered<V>): void {
    this.#answers.set(key, answer);
  }

  /** All answers, the most recently used first. */
  entries(): IterableIterator<readonly [string, Remembered<V>]> {
    return this.#answers.entries();
  }
}
