/** Where the cgroup v2 hierarchy of this host is mounted. */
export interface CgroupMount {
  readonly directory: string;
  /** What stands before paths below `directory`; empty as a rule. */
  readonly prefix: string;
}

/**
 * Finds the cgroup v2 hierarchy (also the v2 part of a hybrid one) in the text of /proc/self/mountinfo
 * (proc_pid_mountinfo(5)): all of it rather than a part. Undefined when there is none, or only a part that the namespace
 * of this process cannot name.
 */
export function findCgroupMount(mountinfo: string): CgroupMount | undefined {
  let part: CgroupMount | undefined;
  for (const line of mountinfo.split('\n')) {
    // id, parent, device, root, mount point, options, optional fields, "-", type, …
    const [mount = '', filesystem = ''] = line.split(' - ');
    if (filesystem.split(' ')[0] !== 'cgroup2') continue;
    const [, , , root = '', directory = ''] = mount.split(' ');
    if (!root.startsWith('/') || root.includes('/..') || !directory.startsWith('/')) continue;
    const found = { directory: unescaped(directory), prefix: unescaped(root.slice(1)) };
    if (found.prefix === '') return found;
    part ??= found;
  }
  return part;
}

/** Blanks, tabs, line ends and backslashes stand there as octal numbers. */
function unescaped(path: string): string {
  return path.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
