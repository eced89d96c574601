import type { Instance } from '../../model/service.ts';
import { hashText, mix } from './hash.ts';

/** Points of one ring, at most twice as many with rounding; 5 to 10 ms to build. */
const MAX_POINTS = 32_768;
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
    const counts = instances.map(({ weight }) => Math.max(1, Math.round(weight * scale)));
    const size = counts.reduce((sum, count) => sum + count, 0);
    const sorted = new Float64Array(size);
    let point = 0;
    for (let index = 0; index < counts.length; index++) {
      const own = this.#hashes[index]!;
      for (let i = 1; i <= counts[index]!; i++) {
        sorted[point++] = mix(own ^ Math.imul(i, GOLDEN_RATIO)) * INDEX_RANGE + index;
      }
    }
    sorted.sort();
    this.#positions = new Uint32Array(size);
    this.#owners = new Uint32Array(size);
    for (let i = 0; i < size; i++) {
      const position = Math.floor(sorted[i]! / INDEX_RANGE);
      this.#positions[i] = position;
      this.#owners[i] = sorted[i]! - position * INDEX_RANGE;
    }
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
