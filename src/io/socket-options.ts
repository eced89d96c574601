import type { Endpoint } from '../model/address.ts';
import * as c from './constants.ts';
import { SOCKADDR_IN6_SIZE } from './layout.ts';
import * as libc from './libc.ts';
import { decodeSocketAddress } from './sockaddr.ts';

/** Keepalive of TCP: probes begin after `idleMs` of silence. */
export interface Keepalive {
  readonly idleMs: number;
}

/**
 * Pause between probes, as a share of the idle time. With the kernel's nine probes (net.ipv4.tcp_keepalive_probes; a
 * call for each connection is saved by not setting our own) a dead peer is found within 1.9 × `idleMs`: 57 s for the
 * default, under conntrack's 60 s for CLOSE_WAIT. TCP_USER_TIMEOUT is left alone on purpose: the kernel would also
 * apply it to a reader that is merely slow (zero window), and end a connection that is all right.
 */
const PROBE_INTERVAL_SHARE = 0.1;
export const DEFAULT_KEEPALIVE: Keepalive = { idleMs: 30_000 };

const value = new Uint8Array(4);
const valueView = new DataView(value.buffer);
const size = new Uint8Array(4);
const sizeView = new DataView(size.buffer);
const address = new Uint8Array(128);

export function setIntegerOption(fd: number, level: number, name: number, number: number): number {
  valueView.setInt32(0, number, true);
  return libc.setsockopt(fd, level, name, value, 4);
}

/** What every connection of the data path wants: no Nagle delay, urgent bytes in the stream, keepalive. */
export function setStreamOptions(fd: number, keepalive?: Keepalive): void {
  setNoDelay(fd);
  setUrgentInline(fd);
  setKeepalive(fd, keepalive);
}

export function setNoDelay(fd: number): void {
  setIntegerOption(fd, c.SOL_TCP, c.TCP_NODELAY, 1);
}

/** Urgent bytes stay in their place. Before any can arrive: the kernel takes them out of the stream when it is read. */
export function setUrgentInline(fd: number): void {
  setIntegerOption(fd, c.SOL_SOCKET, c.SO_OOBINLINE, 1);
}

/** In this order the idle time counts from the last segment that came, also on a connection that is older. */
export function setKeepalive(fd: number, { idleMs }: Keepalive = DEFAULT_KEEPALIVE): void {
  const idle = Math.max(1, Math.round(idleMs / 1000));
  setIntegerOption(fd, c.SOL_SOCKET, c.SO_KEEPALIVE, 1);
  setIntegerOption(fd, c.SOL_TCP, c.TCP_KEEPINTVL, Math.max(1, Math.floor(idle * PROBE_INTERVAL_SHARE)));
  setIntegerOption(fd, c.SOL_TCP, c.TCP_KEEPIDLE, idle);
}

/** The pending error of a socket, which is cleared by asking; 0 when there is none. */
export function takeSocketError(fd: number): number {
  sizeView.setUint32(0, 4, true);
  if (libc.getsockopt(fd, c.SOL_SOCKET, c.SO_ERROR, value, size) < 0) return libc.errno();
  return valueView.getInt32(0, true);
}

const lingerZero = new Uint8Array(8);
new DataView(lingerZero.buffer).setInt32(0, 1, true);

/** Closes a descriptor so that the other side sees RST, whatever is pending in either direction. */
export function closeWithReset(fd: number): void {
  libc.setsockopt(fd, c.SOL_SOCKET, c.SO_LINGER, lingerZero, 8);
  libc.close(fd);
}

/** Own address of a socket. */
export function localEndpointOf(fd: number): Endpoint | undefined {
  sizeView.setUint32(0, SOCKADDR_IN6_SIZE, true);
  return libc.getsockname(fd, address, size) < 0 ? undefined : decodeSocketAddress(address);
}

/** Address of the other end of a connected socket. */
export function remoteEndpointOf(fd: number): Endpoint | undefined {
  sizeView.setUint32(0, SOCKADDR_IN6_SIZE, true);
  return libc.getpeername(fd, address, size) < 0 ? undefined : decodeSocketAddress(address);
}
