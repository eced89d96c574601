import type { EndpointKey } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';
import { type Family, families, setNames } from './names.ts';

/** Room of a set even when it has few members: the kernel's own default, so small catalogues never need a new set. */
const MIN_MAXELEM = 65_536;
/** Most redirected destinations of one family; 30 MB of kernel memory, 23 s to fill on two busy cores. */
const MAX_DESTINATIONS = 1 << 20;

/** What one set is to hold. */
export type Destinations = ReadonlySet<EndpointKey>;

/** Which set a destination belongs to. */
export function splitFamilies(entries: Iterable<EndpointKey>): Readonly<Record<Family, Set<EndpointKey>>> {
  const split = { ipv4: new Set<EndpointKey>(), ipv6: new Set<EndpointKey>() };
  for (const key of entries) (key.startsWith('[') ? split.ipv6 : split.ipv4).add(key);
  for (const family of families) {
    if (split[family].size > MAX_DESTINATIONS) {
      const message = `${split[family].size} ${family} destinations; the bound is ${MAX_DESTINATIONS}`;
      throw new MeshError('overload', 'registry', message);
    }
  }
  return split;
}

/** Room for this many members: the next power of two, at least 65,536. An ipset refuses what goes past it. */
export function maxelemFor(members: number): number {
  return Math.max(MIN_MAXELEM, 2 ** Math.ceil(Math.log2(Math.max(1, members))));
}

/** A member in ipset's notation: `10.0.0.1,tcp:80`. Keys are canonical, so cutting is enough. */
function member(key: EndpointKey): string {
  const colon = key.lastIndexOf(':');
  const ip = key.startsWith('[') ? key.slice(1, colon - 1) : key.slice(0, colon);
  return `${ip},tcp:${key.slice(colon + 1)}`;
}

/** Reads a member as `ipset save` prints it; undefined when it is not one that we would write. */
export function parseMember(text: string): EndpointKey | undefined {
  const match = /^([^,]+),tcp:(\d+)$/.exec(text);
  if (match === null) return undefined;
  const [, ip = '', port] = match;
  return (ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`) as EndpointKey;
}

function create(name: string, family: Family, members: number): string {
  const inet = family === 'ipv4' ? 'inet' : 'inet6';
  const maxelem = maxelemFor(members);
  // The table's first size; it doubles by itself, so this only saves the doublings of a large fill.
  const hashsize = maxelem === MIN_MAXELEM ? 1024 : MIN_MAXELEM / 4;
  return `create ${name} hash:ip,port family ${inet} hashsize ${hashsize} maxelem ${maxelem}`;
}

/**
 * The exact input of `ipset restore` that makes a set hold these members: a second set is filled, swapped in and
 * destroyed, so there is no moment without members. `existing` names the sets that are there (none by default,
 * which is what `mesh-node rules print` shows).
 */
export function renderSet(
  family: Family,
  entries: Destinations,
  existing: ReadonlySet<string> = new Set(),
): string {
  const { live, next } = setNames[family];
  const lines: string[] = [];
  if (existing.has(next)) lines.push(`destroy ${next}`);
  const swap = existing.has(live);
  const target = swap ? next : live;
  lines.push(create(target, family, entries.size));
  for (const key of [...entries].sort()) lines.push(`add ${target} ${member(key)}`);
  if (swap) lines.push(`swap ${next} ${live}`, `destroy ${next}`);
  return `${lines.join('\n')}\n`;
}

/** The input of `ipset -exist restore` for a few changes. */
export function renderChanges(family: Family, added: Destinations, removed: Destinations): string {
  const { live } = setNames[family];
  const lines: string[] = [];
  for (const key of added) lines.push(`add ${live} ${member(key)}`);
  for (const key of removed) lines.push(`del ${live} ${member(key)}`);
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
}

/** What has to be added to and removed from a set. */
export function difference(
  from: Destinations,
  to: Destinations,
): { readonly added: Destinations; readonly removed: Destinations } {
  const added = new Set<EndpointKey>();
  const removed = new Set<EndpointKey>();
  for (const key of to) if (!from.has(key)) added.add(key);
  for (const key of from) if (!to.has(key)) removed.add(key);
  return { added, removed };
}
