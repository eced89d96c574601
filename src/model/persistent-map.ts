const BUCKETS = 256;
const EMPTY: ReadonlyMap<string, unknown> = new Map<string, unknown>();

/** FNV-1a over UTF-16 units, folded to a bucket number. */
function bucketOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  return (hash ^ (hash >>> 8) ^ (hash >>> 16)) & (BUCKETS - 1);
}

/**
 * An immutable map whose copies share what did not change: a change copies one of 256 buckets, so a delta on
 * 100,000 entries costs some hundred entries and not all of them (a worker must never stall for a millisecond).
 */
export class PersistentMap<K extends string, V> implements Iterable<readonly [K, V]> {
  readonly size: number;
  readonly #buckets: readonly ReadonlyMap<K, V>[];

  private constructor(buckets: readonly ReadonlyMap<K, V>[], size: number) {
    this.#buckets = buckets;
    this.size = size;
  }

  static empty<K extends string, V>(): PersistentMap<K, V> {
    return new PersistentMap<K, V>(new Array<ReadonlyMap<K, V>>(BUCKETS).fill(EMPTY as ReadonlyMap<K, V>), 0);
  }

  get(key: K): V | undefined {
    return this.#buckets[bucketOf(key)]!.get(key);
  }

  has(key: K): boolean {
    return this.#buckets[bucketOf(key)]!.has(key);
  }

  /** A new map with these changes; a value of `undefined` removes its key. */
  with(changes: Iterable<readonly [K, V | undefined]>): PersistentMap<K, V> {
    const buckets = this.#buckets.slice();
    const copied = new Set<number>();
    let size = this.size;
    for (const [key, value] of changes) {
      const at = bucketOf(key);
      if (!copied.has(at)) {
        buckets[at] = new Map(buckets[at]);
        copied.add(at);
      }
      const bucket = buckets[at] as Map<K, V>;
      if (bucket.has(key)) size--;
      if (value === undefined) bucket.delete(key);
      else {
        bucket.set(key, value);
        size++;
      }
    }
    return new PersistentMap(buckets, size);
  }

  *[Symbol.iterator](): Iterator<readonly [K, V]> {
    for (const bucket of this.#buckets) yield* bucket;
  }

  *values(): IterableIterator<V> {
    for (const bucket of this.#buckets) yield* bucket.values();
  }
}
