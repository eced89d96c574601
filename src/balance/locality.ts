import type { Instance, NodeName } from '../model/service.ts';
import { hashText } from './pickers/hash.ts';
import type { Picker } from './pickers/picker.ts';

/** Where this agent stands; decides which instances are near. */
export interface Locality {
  readonly node: NodeName;
  readonly zone: string;
  /** The other zones, nearest first; zones that are not listed come last, all alike. */
  readonly otherZones: readonly string[];
}

/** How many of the instances at one distance there are, and may be used. */
export interface RingHealth {
  readonly present: number;
  readonly usable: number;
}

/** When further rings are used as well. */
export interface Overflow {
  /** Percent of a ring that must be usable for it to take all. */
  readonly below: number;
  /** Usable instances that there must be near for them to take all. */
  readonly minimumNear: number;
}

/** So that the ring of a key and its place on that ring have nothing to do with each other. */
const RING_SEED = 0x5bd1e995;

/** 0: this node, 1: this zone, 2 and up: the others. `byZone`: this node is as far as its zone. */
export function distanceOf(instance: Instance, locality: Locality, byZone: boolean): number {
  if (instance.node === locality.node) return byZone ? 1 : 0;
  if (instance.zone === locality.zone) return 1;
  const order = locality.otherZones.indexOf(instance.zone);
  return 2 + (order < 0 ? locality.otherZones.length : order);
}

/**
 * Which part of the load each ring takes, nearest first; together 1. A ring of which `below` percent are usable takes all that
 * reaches it; with fewer it takes as much less as there are fewer, and never more than usable instances so far / `minimumNear`.
 * What it does not take goes on to the next one. If something is left after the last one, all take it in the same
 * measure. (Envoy's priority levels; its overprovisioning factor of 1.4 is `below` 71.)
 */
export function ringShares(rings: readonly RingHealth[], { below, minimumNear }: Overflow): number[] {
  let left = 1;
  let near = 0;
  const shares = rings.map(({ present, usable }) => {
    if (usable === 0) return 0;
    near += usable;
    const healthy = below > 0 ? (usable * 100) / (present * below) : 1;
    const enough = minimumNear > 0 ? near / minimumNear : 1;
    const taken = left * Math.min(1, healthy, enough);
    left -= taken;
    return taken;
  });
  const sum = shares.reduce((total, share) => total + share, 0);
  return sum > 0 && sum < 1 ? shares.map((share) => share / sum) : shares;
}

/** The nearest ring that has somebody left. */
export class NearestRing implements Picker {
  readonly #rings: readonly Picker[];

  constructor(rings: readonly Picker[]) {
    this.#rings = rings;
  }

  pick(exclude: ReadonlySet<Instance>, key?: string): Instance | undefined {
    for (const ring of this.#rings) {
      const instance = ring.pick(exclude, key);
      if (instance !== undefined) return instance;
    }
    return undefined;
  }
}

/** Rings that share the load, each its part; the same key meets the same ring. Who finds nobody left in it goes to the nearest. */
export class SharingRings implements Picker {
  readonly #rings: readonly Picker[];
  readonly #shares: readonly number[];
  readonly #nearest: NearestRing;
  readonly #random: () => number;

  constructor(rings: readonly Picker[], shares: readonly number[], random: () => number) {
    this.#rings = rings;
    this.#shares = shares;
    this.#nearest = new NearestRing(rings);
    this.#random = random;
  }

  pick(exclude: ReadonlySet<Instance>, key?: string): Instance | undefined {
    let at = key === undefined ? this.#random() : hashText(key, RING_SEED) / 2 ** 32;
    let ring = 0;
    for (; ring < this.#shares.length - 1; ring++) {
      at -= this.#shares[ring]!;
      if (at < 0) break;
    }
    return this.#rings[ring]!.pick(exclude, key) ?? this.#nearest.pick(exclude, key);
  }
}
