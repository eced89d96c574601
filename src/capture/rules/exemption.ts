import type { AllowEntry } from '../allow-list.ts';
import type { Family } from '../names.ts';

/** A user, by number: a name would ask NSS, which may hang. */
export interface UidMatch {
  readonly uid: number;
}

/** A control group as it exists now. The kernel binds a rule to it, not to whatever has its path later. */
export interface CgroupMatch {
  /** Below the root of the cgroup v2 hierarchy, without a leading slash. */
  readonly cgroup: string;
  /** Number of its directory; when it changes, the same rule has to be restored. */
  readonly inode: number;
}

/** What is never redirected: a destination, or everything that a user or a control group opens. */
export type Exemption = AllowEntry | UidMatch | CgroupMatch;

/** Callers beside whom nobody is redirected. Empty lists mean nobody at all: a user or unit that does not exist yet. */
export interface OnlyCallers {
  readonly uids: readonly number[];
  readonly cgroups: readonly CgroupMatch[];
}

/** True for destinations; the others are callers, which only packets of this host have. */
export const isDestinationExemption = (exemption: Exemption): exemption is AllowEntry =>
  !('uid' in exemption || 'cgroup' in exemption);

/** The matches of a destination, or undefined when it is of the other family. */
export function destinationMatch(entry: AllowEntry, family: Family): string | undefined {
  const { network, ports } = entry;
  if (network !== undefined && network.family !== family) return undefined;
  const parts: string[] = [];
  if (network !== undefined && network.prefix > 0) parts.push(`-d ${network.address}/${network.prefix}`);
  if (ports !== undefined) {
    const range = ports.first === ports.last ? `${ports.first}` : `${ports.first}:${ports.last}`;
    parts.push(`-p tcp -m tcp --dport ${range}`);
  }
  return parts.join(' ');
}

/** The match of a caller. A path is quoted as iptables-save does: unit names may hold backslashes. */
export function callerMatch(caller: UidMatch | CgroupMatch): string {
  return 'uid' in caller
    ? `-m owner --uid-owner ${caller.uid}`
    : `-m cgroup --path "${caller.cgroup.replace(/["\\]/g, '\\$&')}"`;
}

/** True for a rule that the kernel binds to the control group of its time. */
export const isCgroupRule = (rule: string): boolean => rule.includes('-m cgroup --path ');
