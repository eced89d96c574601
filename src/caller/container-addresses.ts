import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readBounded } from '../io/read-bounded.ts';
import type { Ip } from '../model/address.ts';
import { type Identity, identityOf } from './identity.ts';
import { localIpv4, localIpv6 } from './local-addresses.ts';
import { foreignNamespaces, type NetworkNamespace } from './network-namespaces.ts';

/** `fib_trie` of a container has about 2 KB; one of a router with all routes of the Internet is nobody's container. */
const MOST_BYTES = 256 << 10;

/** A container and where it is seen. */
export interface Claim {
  readonly identity: Identity;
  /** Directory of its cgroup, and its inode number: another container has another. */
  readonly directory: string;
  readonly inode: number;
}

/** Which addresses belong to which container. Those that several may use are `shared`: they cannot be told apart. */
export type ContainerClaims = ReadonlyMap<Ip, Claim | 'shared'>;

/**
 * Reads the addresses of containers from their network namespaces. A namespace is a container's when every process in it
 * is of that container; where others are as well, nobody knows who calls. Needs to see other users' directories in /proc
 * (no `hidepid`, no `ProtectProc=invisible`); without that nothing is found. Addresses of this host are nobody's.
 */
export async function containerClaims(
  containers: ReadonlyMap<string, readonly string[]>,
  proc = '/proc',
): Promise<ContainerClaims> {
  const own = new Set(await addressesOf(join(proc, 'self')));
  const claims = new Map<Ip, Claim | 'shared'>();
  for (const namespace of await foreignNamespaces(proc)) {
    const claim = await claimOf(namespace, containers);
    if (claim === undefined) continue;
    for (const ip of await addressesIn(namespace, proc)) {
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

/** Undefined: the namespace has nothing to do with a container that is known. */
async function claimOf(
  { owners }: NetworkNamespace,
  containers: ReadonlyMap<string, readonly string[]>,
): Promise<Claim | 'shared' | undefined> {
  const [container] = [...owners].filter((owner) => owner !== undefined);
  if (container === undefined) return undefined;
  if (owners.size > 1) return 'shared';
  const directory = containers.get(container)?.[0];
  const status = directory === undefined ? undefined : await stat(directory).catch(() => undefined);
  return directory === undefined || status === undefined
    ? undefined
    : { identity: identityOf({ container }), directory, inode: status.ino };
}

/** By the first of its processes that is still there. */
async function addressesIn({ processes }: NetworkNamespace, proc: string): Promise<readonly Ip[]> {
  for (const pid of processes) {
    const addresses = await addressesOf(join(proc, pid));
    if (addresses.length > 0) return addresses;
  }
  return [];
}

async function addressesOf(process: string): Promise<readonly Ip[]> {
  const [fibTrie, ifInet6] = await Promise.all([
    readBounded(join(process, 'net/fib_trie'), MOST_BYTES),
    readBounded(join(process, 'net/if_inet6'), MOST_BYTES),
  ]);
  return [...localIpv4(fibTrie ?? ''), ...localIpv6(ifInet6 ?? '')];
}
