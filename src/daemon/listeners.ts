import { networkInterfaces } from 'node:os';
import { setTimeout } from 'node:timers/promises';
import type { Config } from '../config/schema.ts';
import { createDatagramSocket } from '../io/datagram.ts';
import { closeDescriptor } from '../io/descriptors.ts';
import { createListeningSocket } from '../io/listener.ts';
import { type Endpoint, type Ip, isIpv6, parseEndpoint, parseIp } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';

/** Connections that wait for a worker; the kernel caps it at net.core.somaxconn. */
export const LISTEN_BACKLOG = 4096;
/** How long a port that is taken is tried again, and how often. */
const BIND_PATIENCE_MS = 3_000;
const BIND_PAUSE_MS = 100;

/** `dns-udp` is a datagram socket; the others are listening stream sockets. */
type ListenerKind = 'capture' | 'tunnel' | 'dns-udp' | 'dns-tcp';

/** A listening socket that all workers share: a stopped or killed worker loses nothing that waits in it. */
export interface Listener extends Endpoint {
  readonly kind: ListenerKind;
  readonly fd: number;
}

/** Without its descriptor: what a worker is told of the descriptors that it inherits, in their order. */
export type ListenerDescription = Omit<Listener, 'fd'>;

/**
 * Binds everything this agent listens on: the capture port on loopback and on the declared bridges (REDIRECT in
 * PREROUTING goes to the address of the interface), the names port there, too, the tunnel port to the world. All or
 * nothing.
 */
function openListeners(config: Config): readonly Listener[] {
  const { capture, names, tunnel } = config;
  const loopback = ['127.0.0.1', ...(capture.ipv6 === 'off' || !hasIpv6() ? [] : ['::1'])] as Ip[];
  const local = capture.mode === 'off' ? [] : [...loopback, ...bridgeAddresses(capture.bridges)];
  const naming = names.ipv4 === 'off' && names.ipv6 === 'off' ? [] : local;
  const wanted: ListenerDescription[] = [
    ...local.map((ip) => ({ kind: 'capture', ip, port: capture.port }) as const),
    ...naming.map((ip) => ({ kind: 'dns-udp', ip, port: names.port }) as const),
    ...naming.map((ip) => ({ kind: 'dns-tcp', ip, port: names.port }) as const),
    { kind: 'tunnel', ip: tunnelAddress(tunnel.listen), port: tunnel.port },
  ];
  const open: Listener[] = [];
  try {
    for (const { kind, ip, port } of wanted) {
      const fd =
        kind === 'dns-udp'
          ? createDatagramSocket({ ip, port })
          : createListeningSocket({ ip, port, backlog: LISTEN_BACKLOG, v6only: kind !== 'tunnel' });
      open.push({ kind, ip, port, fd });
    }
  } catch (error) {
    closeListeners(open);
    throw error;
  }
  return open;
}

/** Ports that the agent listens on beside the capture port: a connection to them from this host is never taken. */
export function ownPorts({ names, tunnel, telemetry }: Config): readonly number[] {
  const metrics = parseEndpoint(telemetry.metricsListen)?.port;
  return [tunnel.port, names.port, ...(metrics === undefined ? [] : [metrics])];
}

/**
 * As {@link openListeners}, with patience: the orphaned workers of a supervisor that was killed may hold the ports for
 * a moment.
 */
export async function openListenersSoon(config: Config): Promise<readonly Listener[]> {
  const deadline = performance.now() + BIND_PATIENCE_MS;
  for (;;) {
    try {
      return openListeners(config);
    } catch (error) {
      if (!/EADDRINUSE/.test(String(error)) || performance.now() > deadline) throw error;
      await setTimeout(BIND_PAUSE_MS);
    }
  }
}

/** Closes them in this process; workers that inherited them keep theirs. */
export function closeListeners(listeners: readonly Listener[]): void {
  for (const { fd } of listeners) closeDescriptor(fd);
}

function hasIpv6(): boolean {
  return Object.values(networkInterfaces()).some((list = []) => list.some(({ family }) => family === 'IPv6'));
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
