import type { Instance } from '../../model/service.ts';
import { hashText, mix } from './hash.ts';

/** Points of one ring, at most twice as many with rounding; about 5 ms to build. */
const MAX_POINTS = 65_536;
/** Points of an instance of mean weight in services that are not too large for it: shares are even within about 10 %. */
const POINTS_EACH = 128;
/** 2^32 · 2^20 is an exact double: position and index of a point are sorted as one number. */
const INDEX_RANGE = 2 ** 20;
const GOLDEN_RATIO = 0x9e3779b9;

/**
 * Instances on a ring of hashes (Karger et al.): each has points in the measure of its weight, and a key belongs to the
 * next point clockwise. Depends on names and weights only, so every host has the same ring, and who comes or goes moves
 * its own keys only.
 */
export class HashRing {
  readonly instances: readonly Instance[];
  /** In order; positions and indices into `instances`. */
  readonly #positions: Uint32Array;
  readonly #owners: Uint32Array;
  readonly #hashes: Uint32Array;

  constructor(instances: readonly Instance[]) {
    this.instances = instances;
    this.#hashes = Uint32Array.from(instances, ({ id }) => hashText(id));
    const scale = scaleOf(instances);
    const points: number[] = [];
    instances.forEach(({ weight }, index) => {
      const own = this.#hashes[index]!;
      const count = Math.max(1, Math.round(weight * scale));
      for (let i = 1; i <= count; i++) {
        points.push(mix(own ^ Math.imul(i, GOLDEN_RATIO)) * INDEX_RANGE + index);
      }
    });
    const sorted = Float64Array.from(points).sort();
    this.#positions = Uint32Array.from(sorted, (point) => Math.floor(point / INDEX_RANGE));
    this.#owners = Uint32Array.from(sorted, (point) => point % INDEX_RANGE);
  }

  /** Number of points. */
  get size(): number {
    return this.#owners.length;
  }

  /** True when it would be the same for these. */
  isFor(instances: readonly Instance[]): boolean {
    if (instances.length !== this.instances.length) return false;
    return instances.every(({ id, weight }, i) => {
      const own = this.instances[i]!;
      return own.id === id && own.weight === weight;
    });
  }

  /** Index of the first point at or after this hash. */
  find(hash: number): number {
    const positions = this.#positions;
    let low = 0;
    let high = positions.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (positions[middle]! >= hash) high = middle;
      else low = middle + 1;
    }
    return low === positions.length ? 0 : low;
  }

  /** Whose point it is: an index into `instances`. */
  owner(point: number): number {
    return this.#owners[point]!;
  }

  /** Hash of the name of an instance, by its index. */
  hashOf(index: number): number {
    return this.#hashes[index]!;
  }
}

/**
 * Points for each unit of weight. A power of two, so that the points of everyone stay where they are when somebody comes or
 * goes, except at the few sizes where it changes.
 */
function scaleOf(instances: readonly Instance[]): number {
  const total = instances.reduce((sum, { weight }) => sum + weight, 0);
  const wanted = Math.min(MAX_POINTS, POINTS_EACH * instances.length);
  return 2 ** Math.floor(Math.log2(wanted / total) + 0.5);
}
