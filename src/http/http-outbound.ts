import type { Channel } from '../io/channel.ts';
import { DenseSet } from '../model/dense-set.ts';
import type { RequestSink } from '../model/request.ts';
import type { Instance, NodeName, Service } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { ConnectionEntry } from '../proxy/connections.ts';
import type { Origin } from '../proxy/origin.ts';
import type { PickToken, SearchDependencies } from '../proxy/outbound-dependencies.ts';
import type { SearchTarget } from '../proxy/search.ts';
import { HttpConnection, type HttpConnectionDependencies } from './http-connection.ts';
import { UpstreamPool } from './upstream-pool.ts';

/** What the stage needs from the others; composed in the worker. */
export interface HttpOutboundDependencies extends SearchDependencies {
  readonly node: NodeName;
  readonly requests: RequestSink;
  /** A request goes to this instance on a channel that is open already. */
  reusing(service: Service, instance: Instance): PickToken;
}

/** Callers' connections to services that speak HTTP/1.1, and the upstream channels that their requests share. */
export class HttpOutbound {
  readonly pool: UpstreamPool;
  readonly #connections = new DenseSet<HttpConnection>();
  readonly #deps: HttpConnectionDependencies;
  #draining = false;
  #snapshot: Snapshot | undefined;

  constructor(dependencies: HttpOutboundDependencies) {
    const isDraining = () => this.#draining;
    this.pool = new UpstreamPool({
      after: dependencies.after,
      agentPatience: () => dependencies.settings().agentPatience,
    });
    this.#deps = {
      ...dependencies,
      pool: this.pool,
      get draining() {
        return isDraining();
      },
      current: (target) => this.#current(target),
      closed: (connection) => this.#connections.delete(connection),
    };
  }

  /** Takes a caller's connection over, paused as it is. */
  accept(client: Channel, entry: ConnectionEntry, origin: Origin, target: SearchTarget): void {
    const connection = new HttpConnection(client, entry, origin, target, this.#deps);
    this.#connections.add(connection);
    connection.start();
  }

  /** The newest catalogue: idle channels to instances that left it are ended. */
  use(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    this.pool.use(snapshot);
  }

  #current(target: SearchTarget): SearchTarget | undefined {
    if (this.#snapshot === undefined) return target;
    const service = this.#snapshot.services.get(target.service.name);
    if (service === target.service) return target;
    if (service?.protocol !== 'http') return undefined;
    if (target.instance === undefined) return { service, instance: undefined };
    const instance = service.instances.find(({ id }) => id === target.instance!.id);
    return instance === undefined ? undefined : { service, instance };
  }

  /** Connections without a request are ended, the others with the answer to the one they have. */
  drain(): void {
    this.#draining = true;
    this.pool.close();
    for (const connection of this.#connections.values()) connection.leave();
  }
}
