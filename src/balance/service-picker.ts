import type { Subset } from '../model/policy.ts';
import type { Instance } from '../model/service.ts';
import type { InstanceRecord } from './instance-record.ts';
import { distanceOf, type Locality, NearestRing, ringShares, SharingRings } from './locality.ts';
import type { PickerSlot } from './picker-cache.ts';
import { buildPicker } from './pickers/build.ts';
import type { Picker } from './pickers/picker.ts';
import type { BalanceRule } from './rule.ts';

/** Who may be picked. */
interface Plan {
  /** Of the subset, and not draining. */
  readonly present: readonly InstanceRecord[];
  /** All of them are used, however they do. */
  readonly panic: boolean;
}

/** What a picker depends on besides. */
interface Surroundings {
  readonly locality: Locality;
  /** Now, for slow start. */
  readonly time: number;
  readonly now: () => number;
  readonly random: () => number;
}

/** Instances at one distance, nearest first. */
interface Ring {
  readonly distance: number;
  readonly records: InstanceRecord[];
}

/** Finds those that may be picked. */
export function planOf(
  records: Iterable<InstanceRecord>,
  subset: Subset | undefined,
  { ejection }: BalanceRule,
): Plan {
  const present: InstanceRecord[] = [];
  let usable = 0;
  for (const record of records) {
    const { instance, health } = record;
    if (instance.draining || (subset !== undefined && !isIn(subset, instance))) continue;
    present.push(record);
    if (health.usable) usable++;
  }
  // When many seem dead the fault is more likely ours, and those that are left could not carry all.
  const panic = usable === 0 || usable * 100 < present.length * ejection.panicBelow;
  return { present, panic };
}

/** Builds the picker of a plan that has somebody in it: one for each distance, and who gets how much. */
export function servicePicker(
  { present, panic }: Plan,
  rule: BalanceRule,
  slot: PickerSlot,
  { locality, time, now, random }: Surroundings,
): Picker {
  const { algorithm, boundedLoad, slowStart } = rule;
  // A key has the same instance for all hosts of a zone, so this host is no ring of its own there.
  const rings = byDistance(present, locality, algorithm === 'ring-hash').map(({ distance, records }) => {
    const usable = panic ? records : records.filter(({ health }) => health.usable);
    const candidates = usable.map((record) => {
      const share = record.share(time, slowStart);
      return { instance: record.instance, load: record, weight: record.instance.weight * share, share };
    });
    const ring = () =>
      slot.ring(
        distance,
        records.map(({ instance }) => instance),
      );
    return { present: records.length, usable: usable.length, candidates, ring };
  });
  const pickers: Picker[] = [];
  const shares: number[] = [];
  ringShares(rings, rule.overflow).forEach((share, i) => {
    const { candidates, ring } = rings[i]!;
    if (candidates.length === 0) return;
    pickers.push(buildPicker(candidates, { algorithm, boundedLoad, ring, random, now }));
    shares.push(share);
  });
  if (pickers.length === 1) return pickers[0]!;
  return shares[0] === 1 ? new NearestRing(pickers) : new SharingRings(pickers, shares, random);
}

function byDistance(records: readonly InstanceRecord[], locality: Locality, byZone: boolean): Ring[] {
  const rings = new Map<number, Ring>();
  for (const record of records) {
    const distance = distanceOf(record.instance, locality, byZone);
    const ring = rings.get(distance);
    if (ring === undefined) rings.set(distance, { distance, records: [record] });
    else ring.records.push(record);
  }
  return Array.from(rings.values()).sort((a, b) => a.distance - b.distance);
}

/** True when an instance carries all of these labels. */
function isIn(subset: Subset, { labels }: Instance): boolean {
  for (const name in subset) if (labels[name] !== subset[name]) return false;
  return true;
}
