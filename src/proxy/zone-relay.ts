import type { Channel } from '../io/channel.ts';
import type { ErrorCode } from '../model/errors.ts';
import type { PeerIdentity } from '../model/peer.ts';
import type { MeshNode, NodeName, ServiceName } from '../model/service.ts';
import type { Candidate } from './candidate.ts';
import type { Connections } from './connections.ts';
import { FirstChannel } from './first-channel.ts';
import { type IncomingStream, join, refuse } from './join.ts';

/** A session that a peer asks us to carry towards a node, end to end encrypted between the two. */
export interface RelayRequest {
  readonly zone: string;
  readonly node: NodeName;
  /** Service that the caller is after: health behind a gateway is kept per zone and service. */
  readonly service: ServiceName;
  /** Zone-agents that it passed already. */
  readonly via: readonly NodeName[];
}

/** What zone/ decides about a request. */
export type RelayDecision =
  | { readonly kind: 'deliver'; readonly node: MeshNode }
  | { readonly kind: 'forward'; readonly zone: string }
  | { readonly kind: 'refuse'; readonly code: ErrorCode; readonly detail: string };

export interface ZoneRelayDependencies {
  decide(request: RelayRequest, peer: PeerIdentity): RelayDecision;
  /** A plain connection to the tunnel listener of a node of this zone. */
  deliver(node: MeshNode): Channel;
  /** Relay streams through the gateways of another zone, best first; made only when asked for. */
  forward(zone: string, request: RelayRequest): Iterator<Candidate>;
  readonly node: NodeName;
  /** Bound on relayed sessions at once. */
  maxStreams(): number;
}

/** The zone-agent's part of the data plane: sees names and ciphertext, never a service's bytes. */
export class ZoneRelay {
  readonly #deps: ZoneRelayDependencies;
  readonly #connections: Connections;
  #active = 0;

  constructor(dependencies: ZoneRelayDependencies, connections: Connections) {
    this.#deps = dependencies;
    this.#connections = connections;
  }

  accept(request: RelayRequest, stream: IncomingStream, peer: PeerIdentity, peerAddress: string): void {
    const entry = this.#connections.begin(
      {
        direction: 'relay',
        callerNode: peer.node,
        callerService: undefined,
        callerAddress: peerAddress,
        destination: `${request.zone}/${request.node}`,
      },
      () => this.#active--,
    );
    this.#active++;
    entry.service = request.service;
    entry.zone = request.zone;
    entry.path = 'relay';
    if (this.#active > this.#deps.maxStreams()) {
      refuse(stream, entry, 'overload', `more than ${this.#deps.maxStreams()} relayed sessions`);
      return;
    }
    const decision = this.#deps.decide(request, peer);
    switch (decision.kind) {
      case 'refuse':
        refuse(stream, entry, decision.code, decision.detail);
        return;
      case 'deliver':
        join(stream, entry, [{ channel: this.#deps.deliver(decision.node) }].values());
        return;
      case 'forward':
        join(stream, entry, [{ channel: this.#forward(decision.zone, request) }].values());
    }
  }

  /** A gateway that does not answer is not waited for while there is another one. */
  #forward(zone: string, request: RelayRequest): Channel {
    const via = [...request.via, this.#deps.node];
    const detail = `no gateway to zone ${zone}`;
    return new FirstChannel(this.#deps.forward(zone, { ...request, via }), {
      reason: 'no-instance',
      delivered: false,
      detail,
    });
  }
}
