import type { OriginalDestination } from '../model/address.ts';
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
 */
export function interceptionOf(channel: TcpChannel): Interception {
  const local = channel.localEndpoint;
  if (local === undefined) return DIRECT;
  sizeView.setUint32(0, address.length, true);
  const level = local.ip.includes(':') ? SOL_IPV6 : SOL_IP;
  if (libc.getsockopt(channel.fd, level, SO_ORIGINAL_DST, address, size) < 0) return DIRECT;
  const original = decodeSocketAddress(address);
  if (original === undefined || (original.port === local.port && original.ip === local.ip)) return DIRECT;
  return { kind: 'redirected', destination: original as OriginalDestination };
}
