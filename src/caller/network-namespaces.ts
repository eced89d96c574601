import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readBounded } from '../io/read-bounded.ts';
import { cgroupName } from './cgroup-name.ts';

/** Processes that are looked at; where there are more, nobody can say that all of a namespace were seen. */
const MOST_PROCESSES = 32_768;
/** Processes that are looked at together. */
const ABREAST = 16;
/** Of the processes of one namespace, those that are noted: one that still runs is enough to read its addresses. */
const MOST_NOTED = 8;
/** A line for each hierarchy of version 1, and one of version 2. */
const MOST_CGROUP_BYTES = 64 << 10;

/** A network namespace other than this process's own. */
export interface NetworkNamespace {
  /** Ids of some of its processes. */
  readonly processes: readonly string[];
  /** The containers of its processes; undefined stands for processes that are of none. */
  readonly owners: ReadonlySet<string | undefined>;
}

/**
 * All network namespaces but our own that have processes, and whose these are. Links in `/proc/PID/ns` can be read with
 * capabilities only; but files below `/proc/PID/net` are those of the namespace, one set for all its processes, so the
 * inode number of one of them tells namespaces apart. Never throws.
 */
export async function foreignNamespaces(proc = '/proc'): Promise<readonly NetworkNamespace[]> {
  const own = await namespaceOf(join(proc, 'self'));
  const pids = (await readdir(proc).catch(() => [])).filter((name) => /^[1-9]\d*$/.test(name));
  if (own === undefined || pids.length > MOST_PROCESSES) return [];
  const found = new Map<number, { processes: string[]; owners: Set<string | undefined> }>();
  for (let at = 0; at < pids.length; at += ABREAST) {
    await Promise.all(
      pids.slice(at, at + ABREAST).map(async (pid) => {
        const inode = await namespaceOf(join(proc, pid));
        if (inode === undefined || inode === own) return;
        const owner = await containerOf(join(proc, pid));
        if (owner === 'gone') return;
        const known = found.get(inode);
        if (known === undefined) found.set(inode, { processes: [pid], owners: new Set([owner]) });
        else {
          known.owners.add(owner);
          if (known.processes.length < MOST_NOTED) known.processes.push(pid);
        }
      }),
    );
  }
  return [...found.values()];
}

/** Undefined for a process that has ended. */
async function namespaceOf(process: string): Promise<number | undefined> {
  const status = await stat(join(process, 'net/dev')).catch(() => undefined);
  return status?.ino;
}

/** The container of a process by its cgroup; undefined when it is of none. */
async function containerOf(process: string): Promise<string | undefined | 'gone'> {
  const text = await readBounded(join(process, 'cgroup'), MOST_CGROUP_BYTES);
  if (text === undefined) return 'gone';
  // cgroups(7): hierarchy 0 is version 2.
  const path = /^0::(.*)$/m.exec(text)?.[1];
  return path === undefined ? undefined : cgroupName(path).container;
}
