import type { Instance } from '../../model/service.ts';
import { type Candidate, isExcluded, type Picker } from './picker.ts';

/** Up to this size everyone is looked at; beyond it two at random, which is nearly as even. */
const EXACT_LIMIT = 16;

/** The one with the fewest connections for its weight. */
export class LeastConnections implements Picker {
  readonly #candidates: readonly Candidate[];
  readonly #random: () => number;

  constructor(candidates: readonly Candidate[], random: () => number) {
    this.#candidates = candidates;
    this.#random = random;
  }

  pick(exclude: ReadonlySet<Instance>): Instance | undefined {
    const candidates = this.#candidates;
    const count = candidates.length;
    const start = Math.floor(this.#random() * count);
    if (count > EXACT_LIMIT) {
      const first = candidates[start]!;
      const second = candidates[(start + 1 + Math.floor(this.#random() * (count - 1))) % count]!;
      const firstOut = isExcluded(first.instance, exclude);
      const secondOut = isExcluded(second.instance, exclude);
      if (!firstOut && !secondOut) return (loadOf(first) <= loadOf(second) ? first : second).instance;
      if (!firstOut) return first.instance;
      if (!secondOut) return second.instance;
    }
    // From a random one on, so that equals share evenly.
    let best: Candidate | undefined;
    for (let i = 0; i < count; i++) {
      const candidate = candidates[(start + i) % count]!;
      if (isExcluded(candidate.instance, exclude)) continue;
      if (best === undefined || loadOf(candidate) < loadOf(best)) best = candidate;
    }
    return best?.instance;
  }
}

function loadOf({ load, weight }: Candidate): number {
  return (load.active + 1) / weight;
}
