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
    this.pool.use(snapshot);
  }

  /** Connections without a request are ended, the others with the answer to the one they have. */
  drain(): void {
    this.#draining = true;
    this.pool.close();
    for (const connection of this.#connections.values()) connection.leave();
  }
}
