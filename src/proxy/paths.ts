import type { Channel, ChannelClose } from '../io/channel.ts';
import { ChannelDuplex } from '../io/duplex.ts';
import { MeshError } from '../model/errors.ts';
import type { ServicePolicy } from '../model/policy.ts';
import type { Instance, MeshNode, NodeName, Service, ServiceName } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { TunnelTarget } from '../tunnel/dial.ts';
import type { OpenRequest } from '../tunnel/open-request.ts';
import type { Gateway, Gateways } from '../zone/gateways.ts';
import type { AdmittedDelivery } from './admitted-delivery.ts';
import type { Candidate } from './candidate.ts';
import type { Delivery } from './delivery.ts';
import { FailedChannel } from './failed-channel.ts';
import { FirstChannel } from './first-channel.ts';
import type { Origin } from './origin.ts';
import type { AgentStream, OpenedPath } from './outbound-dependencies.ts';
import type { KnownCaller } from './proxy-v2.ts';
import { type Way, wayTo } from './way.ts';
import type { RelayRequest } from './zone-relay.ts';

export interface PathsDependencies {
  readonly node: NodeName;
  zone(): string;
  snapshot(): Snapshot;
  callerService(): ServiceName | undefined;
  maxHops(): number;
  /** Milliseconds: `balance.agentPatience`. */
  agentPatience(): number;
  /** What operators say of a service: `hops: two` skips the other agent, where its hosts can be reached directly. */
  policy(service: ServiceName): ServicePolicy;
  readonly gateways: Gateways;
  readonly delivery: Delivery;
  readonly admitted: AdmittedDelivery;
  /** A stream over the tunnel to this target; undefined while this node has no certificate. */
  openStream(target: TunnelTarget, request: OpenRequest): AgentStream | undefined;
}

const noCertificate: ChannelClose = {
  reason: 'tls',
  delivered: false,
  source: 'peer',
  detail: 'this node has no certificate, so it has no tunnels',
};

/** The ways to an instance: on this host, directly, through its host's agent, through zone-agents. */
export class Paths {
  readonly #deps: PathsDependencies;

  constructor(dependencies: PathsDependencies) {
    this.#deps = dependencies;
  }

  /** Opens the way that is meant for this instance; failures arrive as `close` of the channel. */
  open(service: Service, instance: Instance, origin: Origin): OpenedPath {
    const deps = this.#deps;
    const { path, node } = this.wayTo(service, instance);
    if (path === 'local') return { channel: this.#here(service, instance, origin), path, viaAgent: false };
    if (path === 'direct') return { channel: this.past(service, instance, origin), path, viaAgent: false };
    if (node === undefined) {
      const detail = `${service.name} is strict, and no mesh-node is known for ${instance.id}`;
      const channel = new FailedChannel({ reason: 'unreachable', delivered: false, source: 'peer', detail });
      return { channel, path: 'none', viaAgent: true };
    }
    const callerService = deps.callerService();
    const request: OpenRequest = {
      kind: 'service',
      service: service.name,
      instance: instance.id,
      ...(callerService === undefined ? {} : { callerService }),
      ...(origin.program === undefined ? {} : { callerProgram: origin.program }),
      ...(origin.address === undefined ? {} : { callerAddress: origin.address }),
    };
    const target = path === 'relay' ? this.#relayTarget(node, service.name) : directTarget(node);
    const channel = deps.openStream(target, request);
    if (channel === undefined) return { channel: new FailedChannel(noCertificate), path, viaAgent: true };
    return { channel, path, viaAgent: true, agent: channel };
  }

  /** The way that is meant for an instance now. */
  wayTo(service: Service, instance: Instance): Way {
    const { node, zone, snapshot, policy, gateways } = this.#deps;
    return wayTo(service, instance, {
      ...{ node, zone: zone(), snapshot: snapshot(), policy: policy(service.name) },
      reaches: (other) => gateways.has(other),
    });
  }

  /** Here both agents are this one: it is the callee's, too, and asks the service's access rules. */
  #here(service: Service, instance: Instance, origin: Origin): Channel {
    const { admitted, delivery } = this.#deps;
    const { address, program, request } = origin;
    // What the agent asks by itself is nobody's call.
    if (address === undefined && program === undefined) {
      return delivery.here(service, instance, this.#caller(origin));
    }
    const caller = { ...this.#caller(origin), service: this.#deps.callerService() };
    const channel = admitted.here(service, instance, caller, origin, request);
    if (!(channel instanceof MeshError)) return channel;
    return new FailedChannel({
      ...{ reason: channel.code, delivered: false, source: 'callee', detail: channel.message },
    });
  }

  /** Whether an open channel to this instance may carry another request; those of other hosts are asked there. */
  mayReuse(service: Service, instance: Instance, origin: Origin): boolean {
    const { node, admitted, callerService } = this.#deps;
    if (instance.node !== node || origin.request === undefined) return true;
    const caller = { ...this.#caller(origin), service: callerService() };
    return admitted.mayReuse(service, instance, caller, origin, origin.request);
  }

  /** The way without the mesh, to an instance of another host. */
  past(service: Service, instance: Instance, origin: Origin): Channel {
    return this.#deps.delivery.there(service, instance, this.#caller(origin));
  }

  #caller({ address, program }: Origin): KnownCaller {
    return { address, node: this.#deps.node, program };
  }

  /** Relay streams through the gateways of a zone, in the order in which they should be tried; made when asked for. */
  *relays(request: RelayRequest): Generator<Candidate, undefined> {
    const { gateways } = this.#deps;
    const passed = request.via.filter((node) => node !== this.#deps.node);
    for (const gateway of gateways.candidates(request.zone, request.service, passed)) {
      yield this.#relayStream(gateway, request);
    }
    return undefined;
  }

  /**
   * A session with the node itself, inside of a stream that zone-agents carry: they see ciphertext. Whichever gateway
   * answers first is used; when it dies the session does, and the next one goes through another.
   */
  #relayTarget(node: MeshNode, service: ServiceName): TunnelTarget {
    return {
      node: node.name,
      key: `relay ${node.zone} ${node.name}`,
      via: () => {
        const streams = this.relays({ zone: node.zone, node: node.name, service, via: [] });
        const detail = `no gateway to zone ${node.zone}`;
        return new ChannelDuplex(
          new FirstChannel(streams, { reason: 'unreachable', delivered: false, source: 'peer', detail }),
        );
      },
    };
  }

  #relayStream(gateway: Gateway, request: RelayRequest): Candidate {
    const { gateways } = this.#deps;
    const { zone, node, via, service } = request;
    const channel = this.#deps.openStream(gatewayTarget(gateway), {
      kind: 'relay',
      service,
      zone,
      node,
      hops: Math.max(0, this.#deps.maxHops() - via.length - 1),
      via,
    });
    if (channel === undefined) return { channel: new FailedChannel(noCertificate) };
    // Whoever asks us has twice the patience, so that a second gateway behind us is tried before a second one of ours.
    const patience = this.#deps.agentPatience() / 2 ** (via.length + 1);
    return {
      channel,
      patience: patience - channel.silence,
      opened: () => gateways.report(gateway.node, zone, service, 'reached'),
      failed: (why) => {
        const alive = why.reason === 'timeout' && channel.silence === 0;
        const ofGateway = why.source === 'peer' || why.reason === 'draining' || why.reason === 'overload';
        gateways.report(
          gateway.node,
          zone,
          service,
          ofGateway && !alive ? 'gateway-failed' : 'target-failed',
        );
      },
    };
  }
}

function directTarget(node: MeshNode): TunnelTarget {
  const { ip, port } = node.tunnel;
  return { node: node.name, via: node.tunnel, key: `${node.name} ${ip} ${port}` };
}

function gatewayTarget({ node, address }: Gateway): TunnelTarget {
  return { node, via: address, key: `${node} ${address.ip} ${address.port}` };
}
