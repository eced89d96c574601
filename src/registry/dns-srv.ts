import { endpointKey, parseIp } from '../model/address.ts';
import type { Instance, InstanceId } from '../model/service.ts';
import { DEFAULT_WEIGHT } from './defaults.ts';

/*
 * What SRV records (RFC 2782) mean, without I/O. Servers of names are strangers: a record that breaks a rule is
 * reported and left out, the others stay.
 */

/** Targets of one service; further ones are left out and reported. An answer of 64 KiB can hold some two thousand. */
const MAX_TARGETS = 1024;
/** Addresses of one target; further ones are left out and reported. */
const MAX_ADDRESSES = 64;
/** Characters of a name of a stranger in a message. */
const MAX_TEXT = 100;

/** One SRV record, as `node:dns` reads it. */
export interface SrvRecord {
  readonly name: string;
  readonly port: number;
  readonly priority: number;
  readonly weight: number;
}

/**
 * The records that are used: those of the lowest priority, in a stable order. A single `.` as target means that there is
 * no such service, so nothing is left.
 */
export function usedRecords(records: readonly SrvRecord[], problems: string[]): readonly SrvRecord[] {
  const usable: SrvRecord[] = [];
  for (const record of records) {
    if (record.name === '' || record.name === '.') continue;
    if (record.port < 1 || record.port > 65535) problems.push(`target ${printable(record.name)} has no port`);
    else usable.push(record);
  }
  const priority = Math.min(...usable.map((record) => record.priority));
  const used = usable.filter((record) => record.priority === priority).sort(byTarget);
  if (used.length > MAX_TARGETS)
    problems.push(`${used.length - MAX_TARGETS} targets beyond ${MAX_TARGETS} are left out`);
  return used.slice(0, MAX_TARGETS);
}

/** The instances behind the records; `addresses` holds those of each target, by its name. */
export function instancesOf(
  records: readonly SrvRecord[],
  addresses: ReadonlyMap<string, readonly string[]>,
  zone: string,
  problems: string[],
): readonly Instance[] {
  const instances = new Map<string, Instance>();
  // A weight of 0 stands for a small share beside others, and for an equal one among its kind.
  const unweighted = records.every((record) => record.weight === 0);
  for (const { name, port, weight } of records) {
    const found = addresses.get(name) ?? [];
    if (found.length === 0) problems.push(`target ${printable(name)} has no address`);
    if (found.length > MAX_ADDRESSES)
      problems.push(`target ${printable(name)} has more than ${MAX_ADDRESSES} addresses`);
    const used = [...found].sort().slice(0, MAX_ADDRESSES);
    // The weight is that of the target, so its addresses share it.
    const share = unweighted ? DEFAULT_WEIGHT : Math.round(weight / used.length);
    for (const text of used) {
      const ip = parseIp(text);
      if (ip === undefined) {
        problems.push(`target ${printable(name)} has ${printable(text)} as address`);
        continue;
      }
      const address = { ip, port };
      const id = endpointKey(address) as string as InstanceId;
      if (instances.has(id)) {
        problems.push(`several targets claim ${id}; the first is used`);
        continue;
      }
      const within = Math.min(65535, Math.max(1, share));
      instances.set(id, { id, address, zone, labels: {}, weight: within, draining: false });
    }
  }
  return [...instances.values()];
}

function byTarget(a: SrvRecord, b: SrvRecord): number {
  if (a.name !== b.name) return a.name < b.name ? -1 : 1;
  return a.port - b.port || b.weight - a.weight;
}

/** Text of a stranger as it may stand in a log. */
function printable(text: string): string {
  return JSON.stringify(text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT)}…`);
}
