import { type FSWatcher, readdirSync, readFileSync, statSync, watch } from 'node:fs';
import { join } from 'node:path';
import { type CgroupMount, findCgroupMount } from '../io/cgroup-mount.ts';

/** How often the hierarchy is looked at beside the notifications, and so the bound when one is missed. */
const POLL_INTERVAL_MS = 1000;
/** A unit that is gone is told only after this: when it is restarted, its new group comes within this time as a rule. */
const GONE_SETTLE_MS = 200;
/** Changes are told at most this often: each is a restore of rules, and a unit may fail and start again without end. */
const LEAST_INTERVAL_MS = 250;
/** Slices that are searched; each user that is logged in has one. */
const MAX_SLICES = 256;
/** How deep slices lie in each other: systemd makes one level for each `-` of a name. */
const MAX_DEPTH = 8;

/** Control group of a unit, as it exists now. A unit that is restarted gets another one at the same path. */
export interface UnitCgroup {
  /** Below the root of the hierarchy, without a leading slash, as `-m cgroup --path` wants it. */
  readonly path: string;
  /** Number of its directory, which is the kernel's id of the group. */
  readonly inode: number;
}

/** {@link findCgroupMount} of this host. */
export function cgroupMount(): CgroupMount | undefined {
  return findCgroupMount(readFileSync('/proc/self/mountinfo', 'utf8'));
}

/**
 * Follows where units of the system manager have their control groups. Only slices lead to them: a directory of the
 * same name below a user's own manager, or in a container, is not the unit. A unit that does not exist (yet) has no
 * group, and is found once it does.
 */
export class UnitCgroups {
  readonly #mount: CgroupMount | undefined;
  readonly #changed: () => void;
  /** By the path of a slice, with the number of the directory that is watched. */
  readonly #watchers = new Map<string, { readonly inode: number; readonly watcher: FSWatcher }>();
  #wanted: ReadonlySet<string> = new Set();
  #found: ReadonlyMap<string, UnitCgroup> = new Map();
  #poll: NodeJS.Timeout | undefined;
  /** The change that is to be told next. */
  #due: { readonly at: number; readonly timer: NodeJS.Timeout } | undefined;
  #toldAt = Number.NEGATIVE_INFINITY;

  /** @param changed told when a group appeared, was replaced or went. */
  constructor(mount: CgroupMount | undefined, changed: () => void) {
    this.#mount = mount;
    this.#changed = changed;
  }

  /** False on a host without cgroup v2: then no unit is ever found. */
  get usable(): boolean {
    return this.#mount !== undefined;
  }

  /** Replaces the units that are followed; their groups are known when it returns. Nothing is told of it. */
  set(units: ReadonlySet<string>): void {
    this.#wanted = units;
    clearInterval(this.#poll);
    clearTimeout(this.#due?.timer);
    this.#due = undefined;
    this.#found = this.#search();
    if (units.size === 0 || this.#mount === undefined) return;
    this.#poll = setInterval(() => this.#look(), POLL_INTERVAL_MS);
    this.#poll.unref();
  }

  get(unit: string): UnitCgroup | undefined {
    return this.#found.get(unit);
  }

  stop(): void {
    this.set(new Set());
  }

  #look(): void {
    const next = this.#search();
    let fresh = false;
    let gone = false;
    for (const unit of this.#wanted) {
      const [before, now] = [this.#found.get(unit), next.get(unit)];
      if (before?.inode === now?.inode && before?.path === now?.path) continue;
      if (now === undefined) gone = true;
      else fresh = true;
    }
    const now = performance.now();
    if (!fresh && !gone) return;
    const at = Math.max(now + (fresh ? 0 : GONE_SETTLE_MS), this.#toldAt + LEAST_INTERVAL_MS);
    if (at <= now) this.#tell(next);
    else if (this.#due === undefined || at < this.#due.at) {
      clearTimeout(this.#due?.timer);
      this.#due = { at, timer: setTimeout(() => this.#tell(this.#search()), at - now).unref() };
    }
  }

  #tell(found: ReadonlyMap<string, UnitCgroup>): void {
    clearTimeout(this.#due?.timer);
    this.#due = undefined;
    this.#toldAt = performance.now();
    this.#found = found;
    this.#changed();
  }

  /** The hierarchy lives in the kernel's memory: reading it waits for no disk. */
  #search(): ReadonlyMap<string, UnitCgroup> {
    const found = new Map<string, UnitCgroup>();
    const slices = new Set<string>();
    if (this.#mount !== undefined && this.#wanted.size > 0) {
      const queue: { readonly path: string; readonly depth: number }[] = [{ path: '', depth: 0 }];
      for (let slice = queue.shift(); slice !== undefined; slice = queue.shift()) {
        if (slices.size >= MAX_SLICES) break;
        slices.add(slice.path);
        this.#follow(slice.path); // before it is read: what appears in between is told
        for (const name of this.#children(slice.path)) {
          const path = slice.path === '' ? name : `${slice.path}/${name}`;
          if (this.#wanted.has(name) && !found.has(name)) {
            const group = this.#groupAt(path);
            if (group !== undefined) found.set(name, group);
          }
          if (name.endsWith('.slice') && slice.depth < MAX_DEPTH)
            queue.push({ path, depth: slice.depth + 1 });
        }
      }
    }
    for (const path of this.#watchers.keys()) if (!slices.has(path)) this.#unfollow(path);
    return found;
  }

  /** Units and slices in a slice. */
  #children(path: string): readonly string[] {
    try {
      const entries = readdirSync(join(this.#mount!.directory, path), { withFileTypes: true });
      return entries
        .filter(
          (entry) => entry.isDirectory() && (entry.name.endsWith('.slice') || this.#wanted.has(entry.name)),
        )
        .map(({ name }) => name);
    } catch {
      return []; // it went away meanwhile
    }
  }

  #groupAt(path: string): UnitCgroup | undefined {
    const { directory, prefix } = this.#mount!;
    try {
      return { path: prefix === '' ? path : `${prefix}/${path}`, inode: statSync(join(directory, path)).ino };
    } catch {
      return undefined;
    }
  }

  /** What appears in a slice is told at once; the poll is there for what cannot be watched. */
  #follow(path: string): void {
    const directory = join(this.#mount!.directory, path);
    try {
      const inode = statSync(directory).ino;
      if (this.#watchers.get(path)?.inode === inode) return;
      this.#unfollow(path);
      const watcher = watch(directory, { persistent: false }, (_event, name) => {
        if (name === null || name.endsWith('.slice') || this.#wanted.has(name)) this.#look();
      });
      watcher.on('error', () => this.#unfollow(path));
      this.#watchers.set(path, { inode, watcher });
    } catch {
      // it went away, or there are no watches left
    }
  }

  #unfollow(path: string): void {
    this.#watchers.get(path)?.watcher.close();
    this.#watchers.delete(path);
  }
}
