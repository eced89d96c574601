import type { Channel } from '../io/channel.ts';
import type { Endpoint, OriginalDestination } from '../model/address.ts';
import type { ConnectionPath } from '../model/connection.ts';
import { DenseSet } from '../model/dense-set.ts';
import type { RequestSink } from '../model/request.ts';
import type { Instance, NodeName, Service } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { ConnectionEntry } from '../proxy/connections.ts';
import type { Origin } from '../proxy/origin.ts';
import type { PickToken, SearchDependencies } from '../proxy/outbound-dependencies.ts';
import type { Begun } from '../proxy/protocols.ts';
import type { SearchTarget } from '../proxy/seeker.ts';
import type { RequestLimits } from './admission.ts';
import { type ExplicitDependencies, ExplicitTargets } from './explicit-targets.ts';
import { HttpConnection, type HttpConnectionDependencies } from './http-connection.ts';
import { outsideDependencies } from './outside.ts';
import { LOOK_MS } from './silence.ts';
import { OneTarget, type RequestTargets, type SharedDependencies, SharedTarget } from './targets.ts';
import { UpstreamPool } from './upstream-pool.ts';

/** What the stage needs from the others; composed in the worker. */
export interface HttpOutboundDependencies extends SearchDependencies {
  readonly node: NodeName;
  readonly requests: RequestSink;
  /** A request goes to this instance on a channel that is open already. */
  reusing(service: Service, instance: Instance): PickToken;
  /** Whether the request of this origin may go on a channel to this instance that is open already. */
  mayReuse(service: Service, instance: Instance, origin: Origin): boolean;
  /** As in `UpstreamPoolDependencies`. */
  readonly isWay?: (service: Service, instance: Instance, path: ConnectionPath) => boolean;
  /** Bounds on requests by policy. Absent: there are none. */
  readonly limits?: RequestLimits;
  /** As in `ExchangeDependencies`; absent: a timer for each. */
  wait?(milliseconds: number, over: () => void): () => void;
  /** From 0 up to 1; absent: `Math.random`. */
  random?(): number;
  /** To a place outside of the mesh. */
  direct(endpoint: Endpoint): Channel;
  /** For connections to addresses that several services share. */
  readonly shared: SharedDependencies;
  /** For callers of the explicit proxy. */
  readonly explicit: ExplicitDependencies;
}

/** Callers' connections to services that speak HTTP/1.1, and the upstream channels that their requests share. */
export class HttpOutbound {
  readonly pool: UpstreamPool;
  /** Channels to places that no catalogue says anything about. */
  readonly #beyond: UpstreamPool;
  readonly #connections = new DenseSet<HttpConnection>();
  readonly #deps: HttpConnectionDependencies;
  readonly #shared: SharedDependencies;
  readonly #explicit: ExplicitDependencies;
  readonly #after: HttpOutboundDependencies['after'];
  /** A look at the silence of connections is due. */
  #looks = false;
  #draining = false;
  #snapshot: Snapshot | undefined;

  constructor(dependencies: HttpOutboundDependencies) {
    const isDraining = () => this.#draining;
    const agentPatience = () => dependencies.settings().agentPatience;
    const { isWay } = dependencies;
    this.pool = new UpstreamPool({
      ...{ after: dependencies.after, agentPatience },
      ...(isWay === undefined ? {} : { isWay }),
    });
    this.#beyond = new UpstreamPool({ after: dependencies.after, agentPatience });
    this.#shared = dependencies.shared;
    this.#explicit = dependencies.explicit;
    this.#after = dependencies.after;
    const { wait = timer, random = Math.random } = dependencies;
    const inside = { ...dependencies, wait, random, pool: this.pool };
    this.#deps = {
      ...inside,
      outside: outsideDependencies(inside, this.#beyond, dependencies.direct),
      get draining() {
        return isDraining();
      },
      current: (target) => this.#current(target),
      closed: (connection) => this.#connections.delete(connection),
    };
  }

  /** Takes a caller's connection over, paused as it is. */
  accept(client: Channel, entry: ConnectionEntry, origin: Origin, target: SearchTarget, begun?: Begun): void {
    const { opened } = begun ?? {};
    const kept = opened !== undefined && this.pool.adopt(target.service, origin, opened, begun!.openedAt);
    const targets = new OneTarget(target, this.#deps.current);
    this.#take(client, entry, origin, targets, begun, kept ? opened.instance : undefined);
  }

  /** Likewise, one to an address that several services share. */
  acceptShared(
    client: Channel,
    entry: ConnectionEntry,
    origin: Origin,
    destination: OriginalDestination,
    begun?: Begun,
  ): void {
    this.#take(client, entry, origin, new SharedTarget(destination, this.#shared), begun);
  }

  /** Likewise, one to the explicit proxy. */
  acceptExplicit(client: Channel, entry: ConnectionEntry, origin: Origin): void {
    this.#take(client, entry, origin, new ExplicitTargets(isLocal(origin), this.#explicit));
  }

  #take(
    client: Channel,
    entry: ConnectionEntry,
    origin: Origin,
    targets: RequestTargets,
    begun?: Begun,
    opened?: Instance,
  ): void {
    const connection = new HttpConnection(client, entry, origin, targets, this.#deps);
    this.#connections.add(connection);
    if (!this.#looks) this.#lookLater();
    connection.start(begun, opened);
  }

  /** The newest catalogue: idle channels to instances that left it are ended. */
  use(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    this.pool.use(snapshot);
  }

  /** Policies have changed: idle channels on ways that are not meant any more are ended. */
  usePolicies(): void {
    this.pool.usePolicies();
  }

  #lookLater(): void {
    this.#looks = true;
    this.#after(LOOK_MS, () => {
      const now = performance.now();
      for (const connection of this.#connections.values()) connection.look(now);
      this.#looks = this.#connections.size > 0;
      if (this.#looks) this.#lookLater();
    });
  }

  #current(target: SearchTarget): SearchTarget | undefined {
    if (this.#snapshot === undefined) return target;
    const service = this.#snapshot.services.get(target.service.name);
    if (service === target.service) return target;
    if (service === undefined || service.protocol !== target.service.protocol) return undefined;
    if (target.instance === undefined) return { service, instance: undefined };
    const instance = service.instances.find(({ id }) => id === target.instance!.id);
    return instance === undefined ? undefined : { service, instance };
  }

  /** Connections without a request are ended, the others with the answer to the one they have. */
  drain(): void {
    this.#draining = true;
    this.pool.close();
    this.#beyond.close();
    for (const connection of this.#connections.values()) connection.leave();
  }
}

/** The caller is on this host and in its network namespace: nobody else comes from loopback. */
function isLocal({ address }: Origin): boolean {
  return address !== undefined && (address.ip === '::1' || address.ip.startsWith('127.'));
}

/** Longest that a timer of Node may wait; what is longer would be over at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

function timer(milliseconds: number, over: () => void): () => void {
  const timeout = setTimeout(over, Math.min(milliseconds, MAX_TIMER_MS));
  return () => clearTimeout(timeout);
}
