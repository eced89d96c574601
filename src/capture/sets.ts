import type { EndpointKey } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';
import type { Destinations } from './capture-plan.ts';
import { anywhereKey, portAnywhere } from './hosted-ports.ts';
import { type Family, type SetRole, setNames } from './names.ts';

/** Room of a set even when it has few members: the kernel's own default, so small catalogues never need a new set. */
const MIN_MAXELEM = 65_536;
/** Most members of one set; 30 MB of kernel memory, 23 s to fill on two busy cores. */
const MAX_DESTINATIONS = 1 << 20;

/** Throws a MeshError `overload` when these are more than a set may hold. */
export function checkSize(name: string, entries: Destinations): void {
  if (entries.size <= MAX_DESTINATIONS) return;
  const message = `${entries.size} destinations for ${name}; the bound is ${MAX_DESTINATIONS}`;
  throw new MeshError('overload', 'registry', message);
}

/** Room for this many members: the next power of two, at least 65,536. An ipset refuses what goes past it. */
export function maxelemFor(members: number): number {
  return Math.max(MIN_MAXELEM, 2 ** Math.ceil(Math.log2(Math.max(1, members))));
}

/** A member in ipset's notation: `10.0.0.1,tcp:80`, or `80`. Keys are canonical, so cutting is enough. */
function member(key: EndpointKey): string {
  const alone = portAnywhere(key);
  if (alone !== undefined) return alone;
  const colon = key.lastIndexOf(':');
  const ip = key.startsWith('[') ? key.slice(1, colon - 1) : key.slice(0, colon);
  return `${ip},tcp:${key.slice(colon + 1)}`;
}

/** Reads a member as `ipset save` prints it; undefined when it is not one that we would write. */
export function parseMember(text: string): EndpointKey | undefined {
  if (/^\d+$/.test(text)) return anywhereKey(Number(text));
  const match = /^([^,]+),tcp:(\d+)$/.exec(text);
  if (match === null) return undefined;
  const [, ip = '', port] = match;
  return (ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`) as EndpointKey;
}

function create(name: string, role: SetRole, family: Family, members: number): string {
  // 8 KiB, whatever it holds.
  if (role === 'ports') return `create ${name} bitmap:port range 0-65535`;
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
  role: SetRole,
  family: Family,
  entries: Destinations,
  existing: ReadonlySet<string> = new Set(),
): string {
  const { live, next } = setNames(role, family);
  const lines: string[] = [];
  if (existing.has(next)) lines.push(`destroy ${next}`);
  const swap = existing.has(live);
  const target = swap ? next : live;
  lines.push(create(target, role, family, entries.size));
  for (const key of Array.from(entries, ([key]) => key).sort()) lines.push(`add ${target} ${member(key)}`);
  if (swap) lines.push(`swap ${next} ${live}`, `destroy ${next}`);
  return `${lines.join('\n')}\n`;
}

/** What has to be added to and removed from a set. */
interface Changes {
  readonly added: readonly EndpointKey[];
  readonly removed: readonly EndpointKey[];
}

/** The input of `ipset -exist restore` for a few changes. Removals come second: a nearly full set must have room for both. */
export function renderChanges(role: SetRole, family: Family, { added, removed }: Changes): string {
  const { live } = setNames(role, family);
  const lines: string[] = [];
  for (const key of added) lines.push(`add ${live} ${member(key)}`);
  for (const key of removed) lines.push(`del ${live} ${member(key)}`);
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
}

/** From one content to another. Cost follows what the two do not share. */
export function difference(from: Destinations, to: Destinations): Changes {
  const added: EndpointKey[] = [];
  const removed: EndpointKey[] = [];
  for (const [key, there] of to.changesSince(from)) (there ? added : removed).push(key);
  return { added, removed };
}
