import type { SockDiag, SocketOwner } from '../io/netlink-sock-diag.ts';
import type { Endpoint } from '../model/address.ts';
import { nameless } from './cgroup-name.ts';
import type { CgroupWalks } from './cgroup-walks.ts';
import { type Identity, identityOf, Naming, Namings, unknownIdentity } from './identity.ts';
import type { SourcePorts } from './source-ports.ts';
import type { Users } from './users.ts';

/** A cgroup that a walk did not find is not looked for again before: it is gone, or out of its bounds. */
const ABSENT_MS = 1_000;
const MOST_ABSENT = 1_000;
/** Callers that are kept; one more, and all are made anew. */
const MOST_IDENTITIES = 10_000;
/** Connections whose real source port is asked for at once. */
const MOST_REMAPPED = 1_024;

/** Callers whose sockets are in this network namespace. */
export class LocalCallers {
  readonly #sockets: SockDiag;
  readonly #users: Users;
  readonly #walks: CgroupWalks;
  readonly #sources: SourcePorts;
  readonly #namings: Namings<string>;
  readonly #remapped: Namings<string>;
  /** By cgroup, then by user. */
  readonly #identities = new Map<number, Map<number, Identity>>();
  /** How many were made since all were forgotten. */
  #made = 0;
  /** Until when a cgroup counts as not there. */
  readonly #absent = new Map<number, number>();

  constructor(
    sockets: SockDiag,
    users: Users,
    walks: CgroupWalks,
    sources: SourcePorts,
    timeoutMs: () => number,
  ) {
    this.#sockets = sockets;
    this.#users = users;
    this.#walks = walks;
    this.#sources = sources;
    this.#namings = new Namings(timeoutMs);
    this.#remapped = new Namings(timeoutMs, MOST_REMAPPED);
  }

  /** Who has the socket that is connected from `client` to `destination`, as that socket sees it. */
  find(client: Endpoint, destination: Endpoint, listener: Endpoint): Identity | Naming {
    const owner = this.#sockets.owner(client, destination);
    if (owner === 'nobody') return unknownIdentity;
    if (owner !== 'absent') return this.#named(owner);
    return this.#elsewhere(client, destination, listener);
  }

  #named(owner: SocketOwner): Identity | Naming {
    return this.#identities.get(owner.cgroup)?.get(owner.uid) ?? this.#learn(owner.cgroup, owner.uid);
  }

  /** Takes what the last walk saw, which began at this time. */
  walked(beganAt: number): void {
    const { names } = this.#walks.tree;
    for (const cgroup of this.#identities.keys()) {
      if (cgroup !== 0 && !names.has(cgroup)) this.#identities.delete(cgroup);
    }
    for (const [key, since] of this.#namings.entries()) {
      const [cgroup, uid] = key.split(' ').map(Number) as [number, number];
      if (names.has(cgroup)) this.#namings.settle(key, this.#make(cgroup, uid));
      else if (since < beganAt) {
        if (this.#absent.size >= MOST_ABSENT) this.#absent.clear();
        this.#absent.set(cgroup, performance.now() + ABSENT_MS);
        this.#namings.settle(key, this.#byUser(uid));
      } else this.#walks.want();
    }
  }

  /** Names of users have changed. */
  forget(): void {
    this.#identities.clear();
    this.#made = 0;
  }

  close(): void {
    this.#remapped.close();
    this.#namings.close();
  }

  /** The caller may have another port than its connection has here. */
  #elsewhere(client: Endpoint, destination: Endpoint, listener: Endpoint): Identity | Naming {
    const key = `${client.ip} ${client.port}`;
    if (this.#remapped.get(key) !== undefined) return unknownIdentity;
    const connection = { listener: { ip: listener.ip, port: listener.port }, client };
    const asked = this.#sources.find(connection, (port) => {
      const owner =
        port === 0 || port === client.port
          ? 'absent'
          : this.#sockets.owner({ ip: client.ip, port }, destination);
      const found = typeof owner === 'string' ? unknownIdentity : this.#named(owner);
      if (found instanceof Naming) found.wait((identity) => this.#remapped.settle(key, identity));
      else this.#remapped.settle(key, found);
    });
    return (asked ? this.#remapped.begin(key, unknownIdentity, client.ip) : undefined) ?? unknownIdentity;
  }

  #learn(cgroup: number, uid: number): Identity | Naming {
    if (cgroup === 0 || this.#walks.tree.names.has(cgroup)) return this.#make(cgroup, uid);
    const key = `${cgroup} ${uid}`;
    const sought = this.#namings.get(key);
    if (sought !== undefined) return sought;
    const meanwhile = this.#byUser(uid);
    if ((this.#absent.get(cgroup) ?? 0) > performance.now()) return meanwhile;
    const naming = this.#namings.begin(key, meanwhile, `cgroup:${cgroup}`);
    if (naming === undefined) return meanwhile;
    this.#walks.want();
    return naming;
  }

  #make(cgroup: number, uid: number): Identity {
    const { unit, container } = this.#walks.tree.names.get(cgroup) ?? nameless;
    const identity = identityOf({
      ...(unit === undefined ? {} : { unit }),
      ...(container === undefined ? {} : { container }),
      user: this.#users.name(uid),
    });
    if (this.#made >= MOST_IDENTITIES) this.forget();
    const known = this.#identities.get(cgroup);
    if (known === undefined) this.#identities.set(cgroup, new Map([[uid, identity]]));
    else known.set(uid, identity);
    this.#made++;
    return identity;
  }

  #byUser(uid: number): Identity {
    return identityOf({ user: this.#users.name(uid) });
  }
}
