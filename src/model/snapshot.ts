import { type Endpoint, type EndpointKey, endpointKey } from './address.ts';
import { PersistentMap } from './persistent-map.ts';
import {
  type InstanceId,
  type MeshNode,
  type NodeName,
  type Service,
  type ServiceName,
  servicePorts,
} from './service.ts';

/** One service's claim on an address. Without `instance` the address means the service as a whole. */
export interface Claim {
  readonly service: ServiceName;
  readonly instance?: InstanceId;
}

/**
 * Everything the data plane knows, as one immutable value. Workers hold the newest one and swap it whole;
 * a connection keeps the one it was routed by for as long as it needs it.
 */
export interface Snapshot {
  /** Grows by one with each delta; 0 is the empty snapshot. */
  readonly version: number;
  readonly services: PersistentMap<ServiceName, Service>;
  readonly nodes: PersistentMap<NodeName, MeshNode>;
  /** Who claims an address; claims on the whole service come first, then by service name. */
  readonly destinations: PersistentMap<EndpointKey, readonly Claim[]>;
}

/** A change from one snapshot to the next, as it travels from supervisor to worker. */
export interface SnapshotDelta {
  /** The version this delta applies to. */
  readonly base: number;
  readonly services: readonly Service[];
  readonly removedServices: readonly ServiceName[];
  readonly nodes: readonly MeshNode[];
  readonly removedNodes: readonly NodeName[];
}

export const emptySnapshot: Snapshot = Object.freeze({
  version: 0,
  services: PersistentMap.empty<ServiceName, Service>(),
  nodes: PersistentMap.empty<NodeName, MeshNode>(),
  destinations: PersistentMap.empty<EndpointKey, readonly Claim[]>(),
});

/** The addresses that mean a service as a whole: declared ones, what its hosts resolve to, virtual ones. */
function wholeAddresses(service: Service): readonly Endpoint[] {
  const { addresses, resolved = [], virtual = [] } = service;
  if (virtual.length === 0 && resolved.length === 0) return addresses;
  const ports = servicePorts(service);
  return [...addresses, ...resolved, ...virtual.flatMap((ip) => ports.map((port) => ({ ip, port })))];
}

/** Every address that leads to a service: those that mean it as a whole, and those of its instances. */
export function addressesOf(service: Service): readonly Endpoint[] {
  return [...wholeAddresses(service), ...service.instances.map(({ address }) => address)];
}

/** Every address a service claims, with what the address means (docs/architecture.md, "What an address means"). */
function claimsOf(service: Service): readonly { readonly endpoint: Endpoint; readonly claim: Claim }[] {
  const whole: Claim = { service: service.name };
  return [
    ...wholeAddresses(service).map((endpoint) => ({ endpoint, claim: whole })),
    ...service.instances.map((instance) => ({
      endpoint: instance.address,
      claim: service.interchangeable ? whole : { service: service.name, instance: instance.id },
    })),
  ];
}

function compareClaims(a: Claim, b: Claim): number {
  const whole = Number(a.instance !== undefined) - Number(b.instance !== undefined);
  if (whole !== 0) return whole;
  return a.service < b.service ? -1 : a.service > b.service ? 1 : 0;
}

/**
 * The next snapshot. Cost follows the delta, not the catalogue.
 * Throws a RangeError when the delta was made for another version: the receiver must then ask for a full one.
 */
export function applyDelta(snapshot: Snapshot, delta: SnapshotDelta): Snapshot {
  if (delta.base !== snapshot.version) {
    throw new RangeError(`snapshot delta for version ${delta.base} met version ${snapshot.version}`);
  }
  const services = new Map<ServiceName, Service | undefined>();
  for (const name of delta.removedServices) services.set(name, undefined);
  for (const service of delta.services) services.set(service.name, service);

  const touched = new Map<EndpointKey, Claim[]>();
  const claimsAt = (key: EndpointKey): Claim[] => {
    const known = touched.get(key);
    if (known !== undefined) return known;
    const kept = (snapshot.destinations.get(key) ?? []).filter((claim) => !services.has(claim.service));
    touched.set(key, kept);
    return kept;
  };
  for (const [name, service] of services) {
    const before = snapshot.services.get(name);
    if (before !== undefined) for (const { endpoint } of claimsOf(before)) claimsAt(endpointKey(endpoint));
    if (service === undefined) continue;
    for (const { endpoint, claim } of claimsOf(service)) {
      const claims = claimsAt(endpointKey(endpoint));
      if (!claims.some((c) => c.service === claim.service && c.instance === claim.instance))
        claims.push(claim);
    }
  }
  const destinations = snapshot.destinations.with(
    Array.from(
      touched,
      ([key, claims]) => [key, claims.length === 0 ? undefined : claims.sort(compareClaims)] as const,
    ),
  );
  const nodes: (readonly [NodeName, MeshNode | undefined])[] = [
    ...delta.removedNodes.map((name) => [name, undefined] as const),
    ...delta.nodes.map((node) => [node.name, node] as const),
  ];
  return Object.freeze({
    version: snapshot.version + 1,
    services: snapshot.services.with(services),
    nodes: snapshot.nodes.with(nodes),
    destinations,
  });
}
