import type { Instance } from '../../model/service.ts';
import type { PeakEwma } from '../peak-ewma.ts';

/** How busy an instance is, live. */
export interface Load {
  /** Connections, or requests where those are counted, that have begun and not ended. */
  readonly active: number;
  readonly latency: PeakEwma;
}

/** An instance that may be picked. */
export interface Candidate {
  readonly instance: Instance;
  readonly load: Load;
  /** Its weight for now: what it was given, times `share`. */
  readonly weight: number;
  /** Part of its weight that slow start allows, above 0 up to 1. */
  readonly share: number;
}

/** A choice among instances of one service. Built once, replaced whole; `pick` is what every connection and request pays. */
export interface Picker {
  /**
   * One that is not excluded; undefined when all are. `key`: where it is the same, the instance should be; heard by
   * pickers that hash.
   */
  pick(exclude: ReadonlySet<Instance>, key?: string): Instance | undefined;
}

/** By name and not by identity: a snapshot that came between two attempts has other objects for the same instances. */
export function isExcluded(instance: Instance, exclude: ReadonlySet<Instance>): boolean {
  if (exclude.size === 0) return false;
  for (const other of exclude) if (other.id === instance.id) return true;
  return false;
}

/** True when all weigh the same. */
export function isEven(candidates: readonly Candidate[]): boolean {
  return candidates.every(({ weight }) => weight === candidates[0]!.weight);
}
