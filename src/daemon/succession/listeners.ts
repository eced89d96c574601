import { networkInterfaces } from 'node:os';
import type { Config } from '../../config/schema.ts';
import { createDatagramSocket } from '../../io/datagram.ts';
import { createListeningSocket } from '../../io/listener.ts';
import { type Endpoint, type Ip, isIpv6, parseEndpoint, parseIp } from '../../model/address.ts';
import { MeshError } from '../../model/errors.ts';

/** Connections that wait for a worker; the kernel caps it at net.core.somaxconn. */
export const LISTEN_BACKLOG = 4096;

/** `dns-udp` is a datagram socket; the others are listening stream sockets. */
export const listenerKinds = ['capture', 'proxy', 'tunnel', 'dns-udp', 'dns-tcp'] as const;
export type ListenerKind = (typeof listenerKinds)[number];

/** A listening socket that all workers share: a stopped or killed worker loses nothing that waits in it. */
export interface Listener extends Endpoint {
  readonly kind: ListenerKind;
  readonly fd: number;
}

/** Without its descriptor: what a worker is told of the descriptors that it inherits, in their order. */
export type ListenerDescription = Omit<Listener, 'fd'>;

/**
 * Everything this agent listens on: the capture port on loopback and on the declared bridges (REDIRECT in PREROUTING
 * goes to the address of the interface), the names port there, too, the tunnel port to the world; the explicit proxy where
 * it is wanted.
 */
export function wantedListeners(config: Config): readonly ListenerDescription[] {
  const { capture, names, proxy, tunnel } = config;
  const loopback = ['127.0.0.1', ...(capture.ipv6 === 'off' || !hasIpv6() ? [] : ['::1'])] as Ip[];
  const local = capture.mode === 'off' ? [] : [...loopback, ...bridgeAddresses(capture.bridges)];
  const naming = names.ipv4 === 'off' && names.ipv6 === 'off' ? [] : local;
  return [
    ...local.map((ip) => ({ kind: 'capture', ip, port: capture.port }) as const),
    ...proxyAddresses(config, loopback).map((ip) => ({ kind: 'proxy', ip, port: proxy.port }) as const),
    ...naming.map((ip) => ({ kind: 'dns-udp', ip, port: names.port }) as const),
    ...naming.map((ip) => ({ kind: 'dns-tcp', ip, port: names.port }) as const),
    { kind: 'tunnel', ip: tunnelAddress(tunnel.listen), port: tunnel.port },
  ];
}

/** Binds one of them. Throws a MeshError that names address and reason. */
export function openListener({ kind, ip, port }: ListenerDescription): number {
  return kind === 'dns-udp'
    ? createDatagramSocket({ ip, port })
    : createListeningSocket({ ip, port, backlog: LISTEN_BACKLOG, v6only: kind !== 'tunnel' });
}

/** Ports that the agent listens on beside the capture port: a connection to them from this host is never taken. */
export function ownPorts({ names, proxy, tunnel, telemetry }: Config): readonly number[] {
  const metrics = parseEndpoint(telemetry.metricsListen)?.port;
  const explicit = proxy.enabled ? [proxy.port] : [];
  return [tunnel.port, names.port, ...explicit, ...(metrics === undefined ? [] : [metrics])];
}

/** True when an interface of this host, loopback included, has an IPv6 address. */
export function hasIpv6(): boolean {
  return Object.values(networkInterfaces()).some((list = []) => list.some(({ family }) => family === 'IPv6'));
}

function proxyAddresses({ proxy, capture }: Config, loopback: readonly Ip[]): readonly Ip[] {
  if (!proxy.enabled) return [];
  if (proxy.reach === 'everybody') return hasIpv6() ? (['0.0.0.0', '::'] as Ip[]) : ['0.0.0.0' as Ip];
  return proxy.reach === 'loopback' ? loopback : [...loopback, ...bridgeAddresses(capture.bridges)];
}

/** `::` takes IPv4 too; on a host without IPv6 there is only IPv4 to listen on. */
function tunnelAddress(listen: string): Ip {
  const ip = parseIp(listen)!;
  return isIpv6(ip) && !hasIpv6() ? ('0.0.0.0' as Ip) : ip;
}

function bridgeAddresses(bridges: readonly string[]): Ip[] {
  const interfaces = networkInterfaces();
  return bridges.flatMap((name) => {
    const list = interfaces[name];
    if (list === undefined) {
      throw new MeshError(
        'configuration',
        'operator',
        `capture.bridges: no interface ${name} with an address`,
      );
    }
    return list.flatMap(({ address, scopeid }) => (scopeid ? [] : (parseIp(address) ?? [])));
  });
}
