import { type Endpoint, isIpv6 } from '../model/address.ts';
import * as c from './constants.ts';
import * as libc from './libc.ts';
import { encodeSocketAddress } from './sockaddr.ts';
import { setIntegerOption } from './socket-options.ts';

/** Families of transparent sockets, as one byte says them. */
export const socketFamilies = [4, 6] as const;
export type SocketFamily = (typeof socketFamilies)[number];

/**
 * A TCP socket that may be bound to an address of another host. Making one needs CAP_NET_ADMIN or CAP_NET_RAW; binding
 * and connecting it does not (inet_can_nonlocal_bind looks at the socket), so that it can be given to a process
 * without any capability. The errno, negative, when the kernel refuses.
 */
export function createTransparentSocket(family: SocketFamily): number {
  const domain = family === 6 ? c.AF_INET6 : c.AF_INET;
  const fd = libc.socket(domain, c.SOCK_STREAM | c.SOCK_NONBLOCK | c.SOCK_CLOEXEC, 0);
  if (fd < 0) return -libc.errno();
  const [level, name] = family === 6 ? [c.SOL_IPV6, c.IPV6_TRANSPARENT] : [c.SOL_IP, c.IP_TRANSPARENT];
  if (setIntegerOption(fd, level, name, 1) < 0) {
    const errno = libc.errno();
    libc.close(fd);
    return -errno;
  }
  return fd;
}

/**
 * Binds a transparent socket to the caller's address, with its port where nobody here uses that (the same port may go to
 * several instances, or linger in TIME_WAIT), else with another. Answers the errno, 0 when it is bound.
 */
export function bindTransparent(fd: number, source: Endpoint): number {
  if (tryBind(fd, source) === 0) return 0;
  setIntegerOption(fd, c.SOL_IP, c.IP_BIND_ADDRESS_NO_PORT, 1);
  return tryBind(fd, { ip: source.ip, port: 0 });
}

function tryBind(fd: number, source: { readonly ip: Endpoint['ip']; readonly port: number }): number {
  const { bytes, size } = encodeSocketAddress(source);
  return libc.bind(fd, bytes, size) < 0 ? libc.errno() : 0;
}

/** The family of an endpoint. */
export function socketFamilyOf({ ip }: Endpoint): SocketFamily {
  return isIpv6(ip) ? 6 : 4;
}
