import type { AccessRequest } from '../access/rules.ts';
import type { ClientAddress } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';
import { grants, type PeerIdentity } from '../model/peer.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { AdmittedDelivery, DeliveryJournal } from './admitted-delivery.ts';
import type { ConnectionEntry, Connections } from './connections.ts';
import type { Delivery } from './delivery.ts';
import { type IncomingStream, join, refuse } from './join.ts';

/** What a peer asks for: never an address, always a name that this host has registered. */
export interface ServiceRequest {
  readonly service: ServiceName;
  readonly instance: InstanceId;
  readonly callerService: ServiceName | undefined;
  /** Told by the peer and believed as far as the peer is: only shown. */
  readonly callerProgram: string | undefined;
  /** Likewise. Never dialled. */
  readonly callerAddress: ClientAddress | undefined;
}

interface Target {
  readonly service: Service;
  readonly instance: Instance;
}

export interface InboundDependencies {
  snapshot(): Snapshot;
  readonly delivery: Pick<Delivery, 'believed'>;
  readonly admitted: AdmittedDelivery;
  readonly node: NodeName;
}

/** Delivers what peers send to the instances of this host. */
export class Inbound {
  readonly #deps: InboundDependencies;
  readonly #connections: Connections;

  constructor(dependencies: InboundDependencies, connections: Connections) {
    this.#deps = dependencies;
    this.#connections = connections;
  }

  accept(request: ServiceRequest, stream: IncomingStream, peer: PeerIdentity, peerAddress: string): void {
    const entry = this.#connections.begin({
      direction: 'inbound',
      callerNode: peer.node,
      callerService: request.callerService,
      callerAddress: peerAddress,
      destination: `${request.service}/${request.instance}`,
    });
    entry.callerProgram = request.callerProgram;
    entry.service = request.service;
    entry.instance = request.instance;
    const target = this.#authorize(request, peer);
    if (target instanceof MeshError) {
      refuse(stream, entry, target.code, target.message);
      return;
    }
    const { service, instance } = target;
    entry.zone = instance.zone;
    entry.path = 'local';
    const { delivery, admitted } = this.#deps;
    const address = delivery.believed(request.callerAddress);
    const { callerService, callerProgram: program } = request;
    const caller = { address, node: peer.node, program, service: callerService };
    const channel = admitted.here(service, instance, caller, new EntryJournal(entry));
    if (channel instanceof MeshError) refuse(stream, entry, channel.code, channel.message);
    else join(stream, entry, [{ channel }].values());
  }

  #authorize(request: ServiceRequest, peer: PeerIdentity): Target | MeshError {
    if (request.callerService !== undefined && !grants(peer.callAs, request.callerService)) {
      return new MeshError('denied', 'caller', `${peer.node} may not call as ${request.callerService}`);
    }
    const service = this.#deps.snapshot().services.get(request.service);
    if (service === undefined)
      return new MeshError('no-service', 'caller', `${request.service} is not known here`);
    const instance = service.instances.find((candidate) => candidate.id === request.instance);
    if (instance === undefined || instance.node !== this.#deps.node) {
      return new MeshError(
        'no-instance',
        'caller',
        `${request.instance} of ${request.service} is not on this host`,
      );
    }
    return { service, instance };
  }
}

/** What access control has to say of a connection. */
class EntryJournal implements DeliveryJournal {
  readonly #entry: ConnectionEntry;

  constructor(entry: ConnectionEntry) {
    this.#entry = entry;
  }

  judged(): void {
    this.#entry.judged = 'requests';
  }

  noted(what: string): void {
    this.#entry.access = what;
  }

  switched(request: AccessRequest): void {
    this.#entry.judged = request;
  }
}
