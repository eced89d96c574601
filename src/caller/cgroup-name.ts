/** What the path of a cgroup says about the processes in it; empty when it names nothing. */
export interface CgroupName {
  readonly unit?: string;
  readonly container?: string;
}

export const nameless: CgroupName = {};

/** Characters of a container's id that are shown, as `docker ps` does. */
const CONTAINER_ID_SHOWN = 12;
/** Scopes that container engines ask systemd for (docker, podman, CRI-O, containerd), and those of their own drivers. */
const CONTAINER = /^(?:(?:docker|libpod|crio|cri-containerd)-)?([0-9a-f]{64})(?:\.scope)?$/;
/** Directories at the top that engines make where they do not ask systemd (driver `cgroupfs`). */
const CONTAINER_PARENTS: ReadonlySet<string> = new Set([
  'docker',
  'kubepods',
  'libpod_parent',
  'crio',
  'lxc',
]);
/** Kinds of units that have processes; printable, because the name travels in OPEN frames and labels. */
const UNIT = /^[\x21-\x7e]{1,247}\.(?:service|scope|socket|mount|swap)$/;
/** The system manager itself: the one unit at the top. */
const INIT = 'init.scope';
/** Everything below belongs to users' own service managers, who may name what is theirs as they like. */
const USERS = 'user.slice';

/**
 * Reads a path relative to the root of the hierarchy. Only the system manager and root make directories at the top and
 * in slices outside of `user.slice`, so the first part that is no slice is the unit or container. What lies deeper was
 * made by that unit itself, and its names mean nothing: `/system.slice/a.service/orders.service` is `a.service`.
 */
export function cgroupName(path: string): CgroupName {
  const parts = path.split('/').slice(1);
  if (parts[0] === USERS) return nameless;
  let at = 0;
  while (parts[at]?.endsWith('.slice') === true) at++;
  const first = parts[at];
  if (first === undefined) return nameless;
  if (at === 0) return first === INIT ? { unit: INIT } : outsideOfSystemd(first, parts.slice(1));
  const container = containerId(first);
  if (container !== undefined) return { container };
  return UNIT.test(first) ? { unit: first } : nameless;
}

/** What engines made at the top without asking systemd. */
function outsideOfSystemd(top: string, below: readonly string[]): CgroupName {
  if (!CONTAINER_PARENTS.has(top)) return nameless;
  for (const part of below) {
    const container = containerId(part);
    if (container !== undefined) return { container };
  }
  return nameless;
}

function containerId(part: string): string | undefined {
  return CONTAINER.exec(part)?.[1]?.slice(0, CONTAINER_ID_SHOWN);
}
