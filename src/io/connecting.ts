import { type Endpoint, type Ip, isIpv6 } from '../model/address.ts';
import type { ErrorCode } from '../model/errors.ts';
import * as c from './constants.ts';
import * as libc from './libc.ts';
import { encodeSocketAddress } from './sockaddr.ts';
import { type Keepalive, setIntegerOption, setUrgentInline } from './socket-options.ts';

export interface ConnectOptions {
  /** Bound on the three-way handshake; `close` with `timeout` follows. At most 100 ms late. */
  readonly timeoutMs: number;
  /** Address to connect from; the port is chosen late, so that one address is not limited to its 28,232 ports. */
  readonly localIp?: Ip;
  readonly keepalive?: Keepalive;
}

/** Somebody who waits for a socket that is made elsewhere. */
export interface SocketWaiter {
  /** False when it waits no more. */
  take(fd: number): boolean;
  /** There will be none. */
  fail(reason: ErrorCode, detail: string): void;
}

/** A non-blocking TCP socket that can reach `ip`; negative when there is none to have, and `libc.errno` says why. */
export function createStreamSocket(ip: Ip): number {
  const family = isIpv6(ip) ? c.AF_INET6 : c.AF_INET;
  return libc.socket(family, c.SOCK_STREAM | c.SOCK_NONBLOCK | c.SOCK_CLOEXEC, 0);
}

/** Binds to an address of this host, without a port yet; 0 or an errno. */
export function bindToAddress(fd: number, ip: Ip): number {
  setIntegerOption(fd, c.SOL_IP, c.IP_BIND_ADDRESS_NO_PORT, 1);
  const local = encodeSocketAddress({ ip, port: 0 });
  return libc.bind(fd, local.bytes, local.size) < 0 ? libc.errno() : 0;
}

/** Begins the handshake: 0, or an errno when it is over already. */
export function beginHandshake(fd: number, endpoint: Endpoint): number {
  setUrgentInline(fd);
  const address = encodeSocketAddress(endpoint);
  if (libc.connect(fd, address.bytes, address.size) >= 0) return 0;
  const errno = libc.errno();
  return errno === c.EINPROGRESS ? 0 : errno;
}
