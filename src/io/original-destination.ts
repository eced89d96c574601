import { isIpv6, type OriginalDestination } from '../model/address.ts';
import { SO_ORIGINAL_DST, SOL_IP, SOL_IPV6 } from './constants.ts';
import { SOCKADDR_IN6_SIZE } from './layout.ts';
import * as libc from './libc.ts';
import { decodeSocketAddress } from './sockaddr.ts';
import type { TcpChannel } from './socket.ts';

/** Where an accepted connection was going before a REDIRECT rule sent it here. */
export type Interception =
  | { readonly kind: 'redirected'; readonly destination: OriginalDestination }
  /** It was meant for this very socket: a direct connection, or a captured connection of the agent to itself. */
  | { readonly kind: 'direct' };

const DIRECT: Interception = { kind: 'direct' };
const address = new Uint8Array(SOCKADDR_IN6_SIZE);
const size = new Uint8Array(4);
const sizeView = new DataView(size.buffer);

/**
 * Asks the kernel's connection tracking. IPv4 on a dual-stack listener is asked for at the IPv4 level: that works on
 * IPv4-mapped sockets. Without NAT in this namespace the kernel answers ENOENT; a connection that no rule touched
 * gives its own local address.
 * @param listenerPort the port that the connection was accepted on.
 */
export function interceptionOf(channel: TcpChannel, listenerPort: number): Interception {
  const remote = channel.remoteEndpoint;
  if (remote === undefined) return DIRECT;
  sizeView.setUint32(0, address.length, true);
  const level = isIpv6(remote.ip) ? SOL_IPV6 : SOL_IP;
  if (libc.getsockopt(channel.fd, level, SO_ORIGINAL_DST, address, size) < 0) return DIRECT;
  const original = decodeSocketAddress(address);
  if (original === undefined) return DIRECT;
  // Only a connection to the very port can have been meant for this socket: the others are spared the question.
  if (original.port === listenerPort) {
    const local = channel.localEndpoint;
    if (local === undefined || (original.port === local.port && original.ip === local.ip)) return DIRECT;
  }
  return { kind: 'redirected', destination: original as OriginalDestination };
}
