import type { Instance } from '../../model/service.ts';
import { hashText, mix } from './hash.ts';
import type { HashRing } from './hash-ring.ts';
import { leastRequests } from './least-requests.ts';
import { type Candidate, isExcluded, type Picker } from './picker.ts';

/** Points that one pick looks at; after them the key goes to the one with the least load. */
const MAX_STEPS = 2048;

/**
 * Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam): a key goes to its instance, and on to the next
 * on the ring while that one has more than its share of what is active. An instance in slow start takes a growing part
 * of its keys. Requests without a key go where there are few.
 */
export class RingHash implements Picker {
  readonly #ring: HashRing;
  /** By their place on the ring; undefined for those that are not to be used. */
  readonly #candidates: readonly (Candidate | undefined)[];
  readonly #usable: readonly Candidate[];
  readonly #bound: number;
  readonly #weight: number;
  readonly #keyless: Picker;

  /** `boundedLoad`: in percent of the mean; below 100 there would be no place for all. */
  constructor(ring: HashRing, candidates: readonly Candidate[], boundedLoad: number, random: () => number) {
    this.#ring = ring;
    this.#usable = candidates;
    const byId = new Map(candidates.map((candidate) => [candidate.instance.id, candidate]));
    this.#candidates = ring.instances.map(({ id }) => byId.get(id));
    this.#bound = Math.max(boundedLoad, 100) / 100;
    this.#weight = candidates.reduce((sum, { weight }) => sum + weight, 0);
    this.#keyless = leastRequests(candidates, random);
  }

  pick(exclude: ReadonlySet<Instance>, key?: string): Instance | undefined {
    if (key === undefined) return this.#keyless.pick(exclude);
    const ring = this.#ring;
    const hash = hashText(key);
    let point = ring.find(hash);
    let active = -1;
    const steps = Math.min(ring.size, MAX_STEPS);
    for (let i = 0; i < steps; i++) {
      const owner = ring.owner(point);
      const candidate = this.#candidates[owner];
      point = point + 1 === ring.size ? 0 : point + 1;
      if (candidate === undefined || isExcluded(candidate.instance, exclude)) continue;
      if (candidate.share < 1 && mix(hash ^ ring.hashOf(owner)) / 2 ** 32 >= candidate.share) continue;
      if (candidate.load.active > 0) {
        if (active < 0) active = this.#active();
        const share = (this.#bound * (active + 1) * candidate.weight) / this.#weight;
        if (candidate.load.active >= Math.ceil(share)) continue;
      }
      return candidate.instance;
    }
    return this.#leastLoaded(exclude);
  }

  #active(): number {
    let sum = 0;
    for (const { load } of this.#usable) sum += load.active;
    return sum;
  }

  #leastLoaded(exclude: ReadonlySet<Instance>): Instance | undefined {
    let best: Candidate | undefined;
    for (const candidate of this.#usable) {
      if (isExcluded(candidate.instance, exclude)) continue;
      if (best === undefined || candidate.load.active * best.weight < best.load.active * candidate.weight) {
        best = candidate;
      }
    }
    return best?.instance;
  }
}
