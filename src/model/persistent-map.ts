/** Two levels of this many branches; a leaf is an ordinary map that is never changed once it is in place. */
const BRANCHES = 64;

type Leaf<K, V> = ReadonlyMap<K, V>;
type Branch<K, V> = readonly Leaf<K, V>[];

const EMPTY_LEAF: Leaf<string, unknown> = new Map<string, unknown>();
const EMPTY_BRANCH: Branch<string, unknown> = new Array<Leaf<string, unknown>>(BRANCHES).fill(EMPTY_LEAF);

/** FNV-1a over UTF-16 units, folded to 12 bits: 6 choose the branch, 6 the leaf. */
function placeOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  return (hash ^ (hash >>> 12) ^ (hash >>> 24)) & (BRANCHES * BRANCHES - 1);
}

/**
 * An immutable map whose copies share what did not change: a change copies the one of 4096 leaves that it touches, so
 * a thousand changes in 100,000 entries copy some 25,000 (a worker must not stall for more than a millisecond or two).
 */
export class PersistentMap<K extends string, V> implements Iterable<readonly [K, V]> {
  readonly size: number;
  readonly #root: readonly Branch<K, V>[];

  private constructor(root: readonly Branch<K, V>[], size: number) {
    this.#root = root;
    this.size = size;
  }

  static empty<K extends string, V>(): PersistentMap<K, V> {
    return new PersistentMap<K, V>(new Array<Branch<K, V>>(BRANCHES).fill(EMPTY_BRANCH as Branch<K, V>), 0);
  }

  get(key: K): V | undefined {
    const place = placeOf(key);
    return this.#root[place >>> 6]![place & 63]!.get(key);
  }

  has(key: K): boolean {
    const place = placeOf(key);
    return this.#root[place >>> 6]![place & 63]!.has(key);
  }

  /** A new map with these changes; a value of `undefined` removes its key. */
  with(changes: Iterable<readonly [K, V | undefined]>): PersistentMap<K, V> {
    const root = this.#root.slice();
    const copied = new Map<number, Map<K, V>>();
    let size = this.size;
    for (const [key, value] of changes) {
      const place = placeOf(key);
      let leaf = copied.get(place);
      if (leaf === undefined) {
        const at = place >>> 6;
        if (root[at] === this.#root[at]) root[at] = root[at]!.slice();
        leaf = new Map(root[at]![place & 63]!);
        (root[at] as Leaf<K, V>[])[place & 63] = leaf;
        copied.set(place, leaf);
      }
      if (leaf.has(key)) size--;
      if (value === undefined) leaf.delete(key);
      else {
        leaf.set(key, value);
        size++;
      }
    }
    return new PersistentMap(root, size);
  }

  /**
   * What an earlier version of this map would have to change to be this one: keys with their values now, undefined for
   * those that went. Parts that both share are not looked at.
   */
  *changesSince(before: PersistentMap<K, V>): IterableIterator<readonly [K, V | undefined]> {
    for (const [i, branch] of this.#root.entries()) {
      const old = before.#root[i]!;
      if (branch === old) continue;
      for (const [j, leaf] of branch.entries()) {
        const was = old[j]!;
        if (leaf === was) continue;
        for (const [key, value] of leaf) if (was.get(key) !== value) yield [key, value];
        for (const key of was.keys()) if (!leaf.has(key)) yield [key, undefined];
      }
    }
  }

  *[Symbol.iterator](): Iterator<readonly [K, V]> {
    for (const branch of this.#root) for (const leaf of branch) if (leaf.size > 0) yield* leaf;
  }

  *values(): IterableIterator<V> {
    for (const branch of this.#root) for (const leaf of branch) if (leaf.size > 0) yield* leaf.values();
  }
}
