import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { findCgroupMount } from '../io/cgroup-mount.ts';
import { readBounded } from '../io/read-bounded.ts';
import { type CgroupName, cgroupName } from './cgroup-name.ts';

/** Most directories that one walk looks at: systemd makes some hundreds, and what a unit makes below itself comes last. */
const MOST_DIRECTORIES = 10_000;
/** The kernel's own bound on nesting is higher (cgroup.max.depth); nobody names anything so deep. */
const MOST_DEPTH = 16;
/** Bound on one walk; what it saw until then counts. */
const WALK_MS = 2_000;
/** Directories that are looked at together. */
const ABREAST = 8;
/** A container's processes are in one of its first directories. */
const MOST_CONTAINER_DIRECTORIES = 8;
const MOST_CONTAINERS = 1_000;
const USERS = '/user.slice';
/** Some engines' hosts have thousands of mounts. */
const MOST_MOUNTINFO_BYTES = 4 << 20;

/** The cgroups of this host as one walk saw them, and what appeared since. */
export class CgroupTree {
  /** By the id of the cgroup: the inode number of its directory. */
  readonly names = new Map<number, CgroupName>();
  /** Directories of each container, the outermost first. */
  readonly containers = new Map<string, string[]>();
  /** Paths of the slices of the system, the root among them. */
  readonly slices: string[] = [];

  /** Notes a directory below the root of the hierarchy. */
  note(root: string, path: string, inode: number): void {
    if (this.names.size >= MOST_DIRECTORIES) return;
    const name = cgroupName(path);
    this.names.set(inode, name);
    if (path === '' || (path.endsWith('.slice') && path !== USERS && !path.startsWith(`${USERS}/`)))
      this.slices.push(path);
    if (name.container === undefined) return;
    const known = this.containers.get(name.container);
    if (known === undefined) {
      if (this.containers.size < MOST_CONTAINERS) this.containers.set(name.container, [join(root, path)]);
    } else if (known.length < MOST_CONTAINER_DIRECTORIES) known.push(join(root, path));
  }
}

/**
 * Where the cgroup v2 hierarchy is mounted: `/sys/fs/cgroup`, or beside version 1 on hybrid hosts
 * (`/sys/fs/cgroup/unified`). Undefined where there is none, or only a part of it.
 */
export async function findCgroupRoot(mountinfo = '/proc/self/mountinfo'): Promise<string | undefined> {
  const text = await readBounded(mountinfo, MOST_MOUNTINFO_BYTES);
  const mount = text === undefined ? undefined : findCgroupMount(text);
  return mount?.prefix === '' ? mount.directory : undefined;
}

interface Visit {
  readonly path: string;
  readonly depth: number;
}

/**
 * Walks the hierarchy, the upper levels first and the directories of users last, so that neither a unit nor a user who
 * makes thousands of them hides anybody else's. What vanishes meanwhile is left out.
 */
export async function walkCgroups(root: string, most = MOST_DIRECTORIES): Promise<CgroupTree> {
  const tree = new CgroupTree();
  const deadline = performance.now() + WALK_MS;
  let level: Visit[] = [{ path: '', depth: 0 }];
  let users: Visit[] = [];
  let left = most;
  while (level.length > 0) {
    const next: Visit[] = [];
    while (level.length > 0 && left > 0 && performance.now() < deadline) {
      const some = level.splice(0, Math.min(ABREAST, left));
      left -= some.length;
      for (const { visit, inode, children } of await Promise.all(some.map((visit) => look(root, visit)))) {
        if (inode === undefined) continue;
        tree.note(root, visit.path, inode);
        for (const child of children) {
          const below = { path: `${visit.path}/${child}`, depth: visit.depth + 1 };
          if (below.path === USERS) users.push(below);
          else if (below.depth <= MOST_DEPTH && next.length < left) next.push(below);
        }
      }
    }
    level = next;
    if (level.length === 0) {
      level = users;
      users = [];
    }
    if (left <= 0 || performance.now() >= deadline) break;
  }
  return tree;
}

async function look(
  root: string,
  visit: Visit,
): Promise<{
  readonly visit: Visit;
  readonly inode: number | undefined;
  readonly children: readonly string[];
}> {
  const directory = join(root, visit.path);
  try {
    const { ino, nlink } = await stat(directory);
    // The kernel counts two links and one for each directory below: most have none, and need not be read.
    if (nlink === 2) return { visit, inode: ino, children: [] };
    const entries = await readdir(directory, { withFileTypes: true });
    const children = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
    return { visit, inode: ino, children };
  } catch {
    return { visit, inode: undefined, children: [] };
  }
}
