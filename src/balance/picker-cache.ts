import type { Subset } from '../model/policy.ts';
import type { Instance } from '../model/service.ts';
import { HashRing } from './pickers/hash-ring.ts';
import type { Picker } from './pickers/picker.ts';

/** Parts of one service whose pickers are kept; when there are more all are made anew. */
const MAX_SUBSETS = 64;

/** The picker of a service, or of a part of it, and what is expensive about it. */
export class PickerSlot {
  /** Undefined when something changed: the next pick builds another. `none`: there is nobody to pick. */
  picker: Picker | 'none' | undefined;
  readonly #rings = new Map<number, HashRing>();

  /** The ring of these instances, which are at this distance: rings outlive pickers, because health does not change them. */
  ring(distance: number, instances: readonly Instance[]): HashRing {
    const known = this.#rings.get(distance);
    if (known?.isFor(instances)) return known;
    const ring = new HashRing(instances);
    this.#rings.set(distance, ring);
    return ring;
  }
}

/** The pickers of one service, by the part of it that is meant. */
export class PickerCache {
  readonly #whole = new PickerSlot();
  readonly #subsets = new Map<Subset, PickerSlot>();

  /** Subsets are told apart by identity: a policy has the same object for as long as it is in use. */
  slot(subset: Subset | undefined): PickerSlot {
    if (subset === undefined) return this.#whole;
    let slot = this.#subsets.get(subset);
    if (slot === undefined) {
      if (this.#subsets.size === MAX_SUBSETS) this.#subsets.clear();
      slot = new PickerSlot();
      this.#subsets.set(subset, slot);
    }
    return slot;
  }

  /** Something changed: all are built anew when they are asked for. */
  invalidate(): void {
    this.#whole.picker = undefined;
    for (const slot of this.#subsets.values()) slot.picker = undefined;
  }

  /** Policies changed: their subsets are other objects now. */
  forgetSubsets(): void {
    this.#subsets.clear();
    this.#whole.picker = undefined;
  }
}
