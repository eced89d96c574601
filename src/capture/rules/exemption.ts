import type { AllowEntry } from '../allow-list.ts';

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
