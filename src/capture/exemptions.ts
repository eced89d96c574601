import { isDeepStrictEqual } from 'node:util';
import { type Ip, isIpv6 } from '../model/address.ts';
import { type AllowListEntry, formatAllowEntry, MAX_ALLOW_ENTRIES } from './allow-list.ts';
import type { Exemption, OnlyCallers } from './rules/exemption.ts';
import type { UnitCgroup } from './unit-cgroups.ts';

/** Most exemptions that a list can become: host names have several addresses each. See MAX_ALLOW_ENTRIES for the cost. */
const MAX_EXEMPTIONS = 2 * MAX_ALLOW_ENTRIES;

/** What this host says now of the names in a list. */
export interface Surroundings {
  /** What a host name resolves to; empty while it has had no answer. */
  addresses(host: string): readonly Ip[];
  /** Why a host name has no (newer) answer. */
  hostProblem(host: string): string | undefined;
  uidOf(user: string): number | undefined;
  cgroupOf(unit: string): UnitCgroup | undefined;
  /** False where units cannot be told apart at all: no cgroup v2. */
  readonly hasUnits: boolean;
}

/** Users and units of `capture.only`. */
export interface OnlyNames {
  readonly users: readonly string[];
  readonly units: readonly string[];
}

/** A list and `capture.only` as the rules need them, with what could not be found. */
export interface Exemptions {
  readonly exempt: readonly Exemption[];
  /** Undefined: callers are not restricted. */
  readonly only: OnlyCallers | undefined;
  /** What an operator should look at; nothing else is blocked by it. One text each. */
  readonly problems: readonly string[];
  /** Units that do not run now; they are matched once they do. */
  readonly waiting: readonly string[];
}

export const noExemptions: Exemptions = { exempt: [], only: undefined, problems: [], waiting: [] };

/** Looks everything up. What is not found blocks nothing else: it becomes a problem, or is waited for. */
export function resolveExemptions(
  list: readonly AllowListEntry[],
  only: OnlyNames,
  around: Surroundings,
): Exemptions {
  const problems = new Set<string>();
  const waiting = new Set<string>();
  const uidOf = (user: string, where: string): readonly { readonly uid: number }[] => {
    const uid = /^\d+$/.test(user) ? Number(user) : around.uidOf(user);
    if (uid !== undefined) return [{ uid }];
    problems.add(`${where}: no such user in /etc/passwd; one of a directory service is given by number`);
    return [];
  };
  const cgroupOf = (unit: string, where: string) => {
    const found = around.cgroupOf(unit);
    if (found !== undefined) return [{ cgroup: found.path, inode: found.inode }];
    if (around.hasUnits) waiting.add(unit);
    else problems.add(`${where}: this host has no cgroup v2 hierarchy, so units cannot be told apart`);
    return [];
  };
  const exemptOf = (entry: AllowListEntry): readonly Exemption[] => {
    if ('user' in entry) return uidOf(entry.user, formatAllowEntry(entry));
    if ('unit' in entry) return cgroupOf(entry.unit, formatAllowEntry(entry));
    if (!('host' in entry)) return [entry];
    const { host, ports } = entry;
    const problem = around.hostProblem(host);
    if (problem !== undefined) problems.add(`${formatAllowEntry(entry)}: ${problem}`);
    return around
      .addresses(host)
      .map((ip) => ({ network: single(ip), ...(ports === undefined ? {} : { ports }) }));
  };

  const exempt = list.flatMap(exemptOf);
  if (exempt.length > MAX_EXEMPTIONS) {
    problems.add(
      `${exempt.length - MAX_EXEMPTIONS} addresses are left out: at most ${MAX_EXEMPTIONS} are exempt`,
    );
    exempt.length = MAX_EXEMPTIONS;
  }
  const restricted = only.users.length > 0 || only.units.length > 0;
  const callers: OnlyCallers = {
    uids: only.users.flatMap((user) => uidOf(user, `capture.only.users: ${user}`)).map(({ uid }) => uid),
    cgroups: only.units.flatMap((unit) => cgroupOf(unit, `capture.only.units: ${unit}`)),
  };
  return {
    exempt,
    only: restricted ? callers : undefined,
    problems: [...problems],
    waiting: [...waiting],
  };
}

/** True when both ask the same of the kernel: a group that was replaced by another one of the same name is a change. */
export function sameExemptions(a: Exemptions, b: Exemptions): boolean {
  return isDeepStrictEqual(a, b);
}

function single(ip: Ip) {
  return isIpv6(ip)
    ? ({ family: 'ipv6', address: ip, prefix: 128 } as const)
    : ({ family: 'ipv4', address: ip, prefix: 32 } as const);
}
