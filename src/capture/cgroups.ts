import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type CgroupMatch, isDestinationExemption } from './rules/exemption.ts';
import type { RuleInput } from './rules/input.ts';
import { cgroupMount } from './unit-cgroups.ts';

/** True when there is a control group of this path, as `-m cgroup --path` takes it. */
export function cgroupExists(path: string): boolean {
  const mount = cgroupMount();
  return (
    mount !== undefined && existsSync(join(mount.directory, path.slice(mount.prefix.length), 'cgroup.procs'))
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
