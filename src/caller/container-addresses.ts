import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Ip } from '../model/address.ts';
import { type Identity, identityOf } from './identity.ts';
import { localIpv4, localIpv6 } from './local-addresses.ts';
import { readBounded } from './read-bounded.ts';

/** `fib_trie` of a container has about 2 KB; one of a router with all routes of the Internet is nobody's container. */
const MOST_BYTES = 256 << 10;

/** A container and where it is seen. */
export interface Claim {
  readonly identity: Identity;
  /** Directory of its cgroup, and its inode number: another container has another. */
  readonly directory: string;
  readonly inode: number;
}

/** Which addresses belong to which container. Several that share a network namespace cannot be told apart. */
export type ContainerClaims = ReadonlyMap<Ip, Claim | 'shared'>;

/**
 * Reads the addresses of containers from the network namespaces of their processes. Needs to see other users'
 * directories in /proc (no `hidepid`, no `ProtectProc=invisible`); without that nothing is found. Addresses of this host
 * are nobody's: a container without a network namespace of its own has them.
 */
export async function containerClaims(
  containers: ReadonlyMap<string, readonly string[]>,
  proc = '/proc',
): Promise<ContainerClaims> {
  const own = new Set(await addressesOf(join(proc, 'self')));
  const claims = new Map<Ip, Claim | 'shared'>();
  for (const [container, directories] of containers) {
    const claim = await claimOf(container, directories[0]);
    const pid = await firstProcess(directories);
    if (claim === undefined || pid === undefined) continue;
    for (const ip of await addressesOf(join(proc, pid))) {
      if (!own.has(ip)) claims.set(ip, claims.has(ip) ? 'shared' : claim);
    }
  }
  return claims;
}

/** False when the container that had the address is gone. */
export async function stillClaimed(claim: Claim): Promise<boolean> {
  const status = await stat(claim.directory).catch(() => undefined);
  return status?.ino === claim.inode;
}

async function claimOf(container: string, directory: string | undefined): Promise<Claim | undefined> {
  if (directory === undefined) return undefined;
  const status = await stat(directory).catch(() => undefined);
  return status === undefined
    ? undefined
    : { identity: identityOf({ container }), directory, inode: status.ino };
}

async function firstProcess(directories: readonly string[]): Promise<string | undefined> {
  for (const directory of directories) {
    const processes = await readBounded(join(directory, 'cgroup.procs'), MOST_BYTES);
    const pid = /^[1-9]\d*/.exec(processes ?? '')?.[0];
    if (pid !== undefined) return pid;
  }
  return undefined;
}

async function addressesOf(process: string): Promise<readonly Ip[]> {
  const [fibTrie, ifInet6] = await Promise.all([
    readBounded(join(process, 'net/fib_trie'), MOST_BYTES),
    readBounded(join(process, 'net/if_inet6'), MOST_BYTES),
  ]);
  return [...localIpv4(fibTrie ?? ''), ...localIpv6(ifInet6 ?? '')];
}
