import type { Endpoint, Ip } from './address.ts';

/** Lower-case DNS name without a final dot, at most 253 characters: `orders`, `orders.shop`. */
export type ServiceName = string & { readonly __serviceName: unique symbol };

/** Name of a host in the mesh; unique within the trust domain. Same alphabet as {@link ServiceName}. */
export type NodeName = string & { readonly __nodeName: unique symbol };

/** Unique within its service; by default the text of its address. At most 253 printable ASCII characters without spaces. */
export type InstanceId = string & { readonly __instanceId: unique symbol };

/**
 * What an application speaks. `http` is read as HTTP/1.1, of `redis` commands are counted, `auto` is found out for each
 * connection; all others are carried as they are (docs/protocols.md).
 */
export const protocols = ['tcp', 'auto', 'http', 'http2', 'grpc', 'tls', 'redis'] as const;
export type Protocol = (typeof protocols)[number];

/** How instances are picked. */
export const balancePolicies = ['round-robin', 'least-connections'] as const;
export type BalancePolicy = (typeof balancePolicies)[number];

/** `permissive` fails open (direct when the mesh cannot carry it); `strict` fails closed. */
export const serviceModes = ['permissive', 'strict'] as const;
export type ServiceMode = (typeof serviceModes)[number];

/**
 * Whose address an instance sees: the delivering `node`'s, or the caller's, in a PROXY protocol v2 header (`proxy-v2`) or
 * as the peer address itself (`transparent`).
 */
export const deliverySources = ['node', 'proxy-v2', 'transparent'] as const;
export type DeliverySource = (typeof deliverySources)[number];

/** One running copy of a service. */
export interface Instance {
  readonly id: InstanceId;
  /** Where it listens, as its host sees it. */
  readonly address: Endpoint;
  /** The mesh-node that serves it; absent when its host has none, then it is reached directly. */
  readonly node?: NodeName;
  readonly zone: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Relative share of new connections, 1–65535; 100 by default. */
  readonly weight: number;
  /** A draining instance gets no new connection and loses none. */
  readonly draining: boolean;
}

/** A service and everything about it that routing needs. */
export interface Service {
  readonly name: ServiceName;
  readonly protocol: Protocol;
  readonly mode: ServiceMode;
  /** True when the address of one instance may be answered by any of them. */
  readonly interchangeable: boolean;
  readonly balance: BalancePolicy;
  /** Names that callers use already, beside the service's own. */
  readonly hosts: readonly string[];
  /** Addresses that callers use already and that mean the service as a whole, such as an old load balancer's. */
  readonly addresses: readonly Endpoint[];
  readonly instances: readonly Instance[];
  /** Ports of its virtual addresses and of its `hosts`; absent: those of its instances ({@link servicePorts}). */
  readonly ports?: readonly number[];
  /** Absent: `node`. */
  readonly source?: DeliverySource;
  /** Its virtual addresses, at most one of each family. Given by this host, never by a registry. */
  readonly virtual?: readonly Ip[];
  /** What its `hosts` resolve to at this host, with its ports. Given by this host, never by a registry. */
  readonly resolved?: readonly Endpoint[];
}

/** Most ports of one service. */
export const MAX_SERVICE_PORTS = 64;

/** The ports at which the service as a whole is reached. */
export function servicePorts(service: Service): readonly number[] {
  if (service.ports !== undefined) return service.ports;
  const ports = new Set<number>();
  for (const { address } of service.instances) {
    ports.add(address.port);
    if (ports.size === MAX_SERVICE_PORTS) break;
  }
  return [...ports].sort((a, b) => a - b);
}

/** A host that runs mesh-node. */
export interface MeshNode {
  readonly name: NodeName;
  readonly zone: string;
  /** Where its tunnel listener is reached. */
  readonly tunnel: Endpoint;
}

const NAME = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/;
const INSTANCE = /^[\x21-\x7e]{1,253}$/;

/** Checks the form of a service name; undefined when it has another. */
export function parseServiceName(text: string): ServiceName | undefined {
  return NAME.test(text) ? (text as ServiceName) : undefined;
}

/** Checks the form of a node name; undefined when it has another. */
export function parseNodeName(text: string): NodeName | undefined {
  return NAME.test(text) ? (text as NodeName) : undefined;
}

/** Checks the form of an instance id; undefined when it has another. */
export function parseInstanceId(text: string): InstanceId | undefined {
  return INSTANCE.test(text) ? (text as InstanceId) : undefined;
}
