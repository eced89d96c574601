import { stableShare } from '../policy/match/stable-share.ts';

/** One of those among which is chosen. */
export interface Side<T> {
  /** What makes it the same one in another split. */
  readonly key: string;
  /** Share among its neighbours; 0: none. */
  readonly weight: number;
  readonly value: T;
}

/**
 * Chooses one of several by weight: at random, or by a text (weighted rendezvous hashing: the side whose `-ln(u)/weight`
 * is least, u being a hash of text and side). Whoever is on a side stays there for as long as its weight does not fall
 * against any other's, in whatever order they stand.
 */
export class WeightedSplit<T> {
  readonly #sides: readonly Side<T>[];
  readonly #total: number;
  readonly #otherwise: T;

  /** `salt`: what makes choices for the same text independent in different splits. Sides of weight 0 are left out. */
  constructor(salt: string, sides: readonly Side<T>[], otherwise: T) {
    const merged = new Map<string, Side<T>>();
    for (const { key, weight, value } of sides) {
      if (weight <= 0) continue;
      const name = `${salt} ${key}`;
      merged.set(name, { key: name, weight: weight + (merged.get(name)?.weight ?? 0), value });
    }
    this.#sides = [...merged.values()];
    this.#total = this.#sides.reduce((sum, { weight }) => sum + weight, 0);
    this.#otherwise = otherwise;
  }

  /** Nothing has to be decided. */
  get single(): boolean {
    return this.#sides.length <= 1;
  }

  /** The side for this text; without one, at random. The value given as `otherwise` where there is no side. */
  at(text: string | undefined, random: () => number): T {
    if (this.single) return this.#sides[0]?.value ?? this.#otherwise;
    return (text === undefined ? this.#atRandom(random) : this.#byText(text)).value;
  }

  #atRandom(random: () => number): Side<T> {
    let left = random() * this.#total;
    for (const side of this.#sides) {
      left -= side.weight;
      if (left < 0) return side;
    }
    return this.#sides.at(-1)!;
  }

  #byText(text: string): Side<T> {
    let best = this.#sides[0]!;
    let least = Number.POSITIVE_INFINITY;
    for (const side of this.#sides) {
      const score = -Math.log(Math.max(stableShare(side.key, text), Number.MIN_VALUE)) / side.weight;
      if (score < least) {
        best = side;
        least = score;
      }
    }
    return best;
  }
}
