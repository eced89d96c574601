import type { Instance } from '../../model/service.ts';
import { type Candidate, isEven, isExcluded, type Picker } from './picker.ts';

/** Draws until one is found that may be taken; after them everyone is looked at in turn. */
const DRAWS = 4;

/**
 * Power of two choices (Mitzenmacher): two different ones are drawn, and the better of them is taken. With many agents
 * that is as good as the best of all, and does not bring all of them to that one at once. The first is drawn by weight
 * and stays unless the second is better, so weights hold exactly where there is nothing to choose between.
 */
export class TwoChoices implements Picker {
  readonly #candidates: readonly Candidate[];
  readonly #random: () => number;
  readonly #isBetter: (second: Candidate, first: Candidate) => boolean;
  /** Running sums of weights; undefined where all weigh the same. */
  readonly #sums: Float64Array | undefined;

  constructor(
    candidates: readonly Candidate[],
    random: () => number,
    isBetter: (second: Candidate, first: Candidate) => boolean,
  ) {
    this.#candidates = candidates;
    this.#random = random;
    this.#isBetter = isBetter;
    this.#sums = isEven(candidates) ? undefined : runningSums(candidates);
  }

  pick(exclude: ReadonlySet<Instance>): Instance | undefined {
    const at = this.#draw(exclude, -1);
    if (at < 0) return undefined;
    const first = this.#candidates[at]!;
    const other = this.#draw(exclude, at);
    if (other < 0) return first.instance;
    const second = this.#candidates[other]!;
    return (this.#isBetter(second, first) ? second : first).instance;
  }

  /** Index of one that is neither excluded nor `taken`; -1 when there is none. */
  #draw(exclude: ReadonlySet<Instance>, taken: number): number {
    const candidates = this.#candidates;
    const count = candidates.length;
    if (taken >= 0 && count === 1) return -1;
    for (let i = 0; i < DRAWS; i++) {
      const at = this.#sample();
      if (at !== taken && !isExcluded(candidates[at]!.instance, exclude)) return at;
    }
    const start = Math.floor(this.#random() * count);
    for (let i = 0; i < count; i++) {
      const at = (start + i) % count;
      if (at !== taken && !isExcluded(candidates[at]!.instance, exclude)) return at;
    }
    return -1;
  }

  #sample(): number {
    const sums = this.#sums;
    if (sums === undefined) return Math.floor(this.#random() * this.#candidates.length);
    const wanted = this.#random() * sums[sums.length - 1]!;
    let low = 0;
    let high = sums.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle]! > wanted) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

function runningSums(candidates: readonly Candidate[]): Float64Array {
  let sum = 0;
  return Float64Array.from(candidates, ({ weight }) => {
    sum += weight;
    return sum;
  });
}
