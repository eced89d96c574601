import { existsSync } from 'node:fs';
import { type CgroupMatch, isDestinationExemption } from './rules/exemption.ts';
import type { RuleInput } from './rules/input.ts';

/** Where cgroup v2 is mounted: alone, or beside version 1. */
const ROOTS = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'];

/** True when the kernel knows a control group of this path. */
export function cgroupExists(path: string): boolean {
  return ROOTS.some(
    (root) => existsSync(`${root}/cgroup.procs`) && existsSync(`${root}/${path}/cgroup.procs`),
  );
}

/**
 * Without the control groups that do not exist (any more): one rule that names such a one, and the kernel takes none. A unit
 * that is not there opens no connection; its owner says when it is there again.
 */
export function withCgroups(input: RuleInput, exists: (path: string) => boolean): RuleInput {
  const there = ({ cgroup }: CgroupMatch): boolean => exists(cgroup);
  const exempt = input.exempt.filter(
    (exemption) => isDestinationExemption(exemption) || !('cgroup' in exemption) || there(exemption),
  );
  const only = input.only && { ...input.only, cgroups: input.only.cgroups.filter(there) };
  return exempt.length === input.exempt.length && only?.cgroups.length === input.only?.cgroups.length
    ? input
    : { ...input, exempt, only };
}

/** What rules about control groups are bound to; when it changes they must be put in again. */
export function bindingsOf(input: RuleInput): string {
  const bound = [
    ...input.exempt.filter((exemption): exemption is CgroupMatch => 'cgroup' in exemption),
    ...(input.only?.cgroups ?? []),
  ];
  return bound.map(({ cgroup, inode }) => `${inode} ${cgroup}`).join('\n');
}
