import { stat } from 'node:fs/promises';
import { release } from 'node:os';
import { findUser } from '../../daemon/user.ts';
import { type Check, type CheckResult, type CheckSubject, fail, ok, skip, warn, worst } from './check.ts';

/** Oldest Node.js that the program is tested with; production installs it for the whole system. */
const NODE = [20, 20] as const;
/** Two descriptors for each connection, and some for tunnels, files and the loop. */
const SPARE_DESCRIPTORS = 1024;
/** Since then the kernel tells the control group of a socket (INET_DIAG_CGROUP_ID). */
const KERNEL = [5, 8] as const;
/** Share of the conntrack table in use at which it is worth a word. */
const CONNTRACK_WARN = 0.6;

/** True when `x.y…` is at least so much. */
function atLeast(version: string, [major, minor]: readonly [number, number]): boolean {
  const [a = 0, b = 0] = version.split('.').map((part) => Number.parseInt(part, 10));
  return a > major || (a === major && b >= minor);
}

const user: Check = {
  name: 'user',
  run: async ({ config: { daemon } }) => {
    try {
      return ok(`${daemon.user} has uid ${findUser(daemon.user).uid}`);
    } catch (error) {
      return fail(
        (error as Error).message,
        `useradd --system --no-create-home --shell /usr/sbin/nologin ${daemon.user}`,
      );
    }
  },
};

const node: Check = {
  name: 'node',
  run: async () => {
    const { version, execPath } = process;
    if (!atLeast(version.slice(1), NODE))
      return fail(`${version} at ${execPath}`, `Node.js ${NODE.join('.')} or later is needed`);
    if (/^\/(?:root|home)\//.test(execPath))
      return warn(
        `${version} at ${execPath}, where the daemon's user may not look`,
        'install it for the whole system',
      );
    return ok(`${version} at ${execPath}`);
  },
};

const kernel: Check = {
  name: 'kernel',
  run: async ({ config, read }) => {
    const found = release();
    const ipv6 = (await read('/proc/net/if_inet6'))?.trim();
    const families = ipv6 ? 'IPv4 and IPv6' : 'no IPv6';
    if (config.capture.ipv6 === 'on' && !ipv6)
      return fail(`${found}, ${families}, but capture.ipv6 is on`, 'capture.ipv6: auto');
    if (atLeast(found, KERNEL)) return ok(`${found}, ${families}`);
    return warn(
      `${found}: units behind connections are named from ${KERNEL.join('.')} on`,
      'nothing else depends on it',
    );
  },
};

/** What others may write decides what the daemon does; what it cannot read it does not know. */
const files: Check = {
  name: 'files',
  run: async ({ config }) => {
    const { capture, identity, daemon } = config;
    const shared = [
      capture.allowList,
      identity.authority,
      identity.certificate,
      daemon.stateDirectory,
      daemon.runtimeDirectory,
    ];
    const found = await Promise.all([
      ...shared.map((path) => modeOf(path, 0o022, 'others may write')),
      modeOf(identity.key, 0o077, 'others may read it'),
      ownerOf(identity.key, daemon.user),
    ]);
    return (
      worst(found.flat()) ?? ok('modes and owners of allow-list, certificates, key and directories are right')
    );
  },
};

async function modeOf(path: string, forbidden: number, why: string): Promise<readonly CheckResult[]> {
  const mode = (await stat(path).catch(() => undefined))?.mode;
  if (mode === undefined || (mode & forbidden) === 0) return [];
  const right = (mode & 0o777 & ~forbidden).toString(8);
  return [fail(`${path} has mode ${(mode & 0o777).toString(8)}: ${why}`, `chmod ${right} ${path}`)];
}

/** Nobody else may read it, so it has to be the daemon's own. */
async function ownerOf(path: string, name: string): Promise<readonly CheckResult[]> {
  const owner = (await stat(path).catch(() => undefined))?.uid;
  const uid = uidOf(name);
  if (owner === undefined || uid === undefined || owner === uid || uid === 0) return [];
  return [
    fail(
      `${path} belongs to uid ${owner}: the daemon (${name}, uid ${uid}) cannot read it`,
      `chown ${name} ${path}`,
    ),
  ];
}

function uidOf(name: string): number | undefined {
  try {
    return findUser(name).uid;
  } catch {
    return undefined; // the check of the user says so
  }
}

const descriptors: Check = {
  name: 'descriptors',
  run: async (subject) => {
    const { limits } = subject.config;
    const { whose, hard } = await descriptorLimit(subject);
    if (hard === undefined) return skip('the limit cannot be read');
    const needed = 2 * limits.connections + SPARE_DESCRIPTORS;
    if (hard === 'unlimited' || Number(hard) >= needed)
      return ok(`${hard} allowed ${whose}, ${needed} needed by a worker`);
    return warn(
      `${hard} allowed ${whose}, but limits.connections ${limits.connections} needs ${needed}`,
      'the systemd unit sets LimitNOFILE; elsewhere ulimit -Hn',
    );
  },
};

/** The limit of a worker that runs, else the one that holds here. */
async function descriptorLimit({
  daemon,
  read,
}: CheckSubject): Promise<{ readonly whose: string; readonly hard: string | undefined }> {
  const worker = (await daemon())?.workers[0];
  const text = worker === undefined ? undefined : await read(`/proc/${worker.pid}/limits`);
  const shown = text ?? (await read('/proc/self/limits')) ?? '';
  return {
    whose: text === undefined ? 'here' : 'to a worker',
    hard: /^Max open files\s+\S+\s+(\S+)/m.exec(shown)?.[1],
  };
}

const conntrack: Check = {
  name: 'conntrack',
  run: async ({ config: { guard }, read }) => {
    const base = '/proc/sys/net/netfilter/nf_conntrack_';
    const [used, most] = (await Promise.all([read(`${base}count`), read(`${base}max`)])).map(Number);
    if (!(used! >= 0 && most! > 0)) return skip('nf_conntrack is not loaded yet');
    const share = used! / most!;
    const detail = `${used} of ${most} entries in use`;
    if (share < CONNTRACK_WARN) return ok(detail);
    const hint = `raise net.netfilter.nf_conntrack_max; from ${guard.maxConntrackPercent} % on new connections go direct`;
    return share * 100 < guard.maxConntrackPercent ? warn(detail, hint) : fail(detail, hint);
  },
};

/** What of the host itself has to be right. */
export const hostChecks: readonly Check[] = [user, node, kernel, files, descriptors, conntrack];
