import { type Endpoint, isIpv6 } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';
import * as c from './constants.ts';
import { describeErrno } from './failure.ts';
import * as libc from './libc.ts';
import { encodeSocketAddress } from './sockaddr.ts';
import { setIntegerOption } from './socket-options.ts';

/** A bound datagram socket of one family, close-on-exec and non-blocking. Throws a MeshError that names address and reason. */
export function createDatagramSocket(endpoint: Endpoint): number {
  const { ip, port } = endpoint;
  const address = encodeSocketAddress(endpoint);
  const where = isIpv6(ip) ? `[${ip}]:${port}` : `${ip}:${port}`;
  const failed = (call: string): MeshError =>
    new MeshError(
      'system',
      'kernel',
      `cannot listen on ${where} (UDP): ${describeErrno(call, libc.errno())}`,
    );
  const fd = libc.socket(address.family, c.SOCK_DGRAM | c.SOCK_NONBLOCK | c.SOCK_CLOEXEC, 0);
  if (fd < 0) throw failed('socket');
  if (isIpv6(ip)) setIntegerOption(fd, c.SOL_IPV6, c.IPV6_V6ONLY, 1);
  if (libc.bind(fd, address.bytes, address.size) < 0) {
    const error = failed('bind');
    libc.close(fd);
    throw error;
  }
  return fd;
}

/**
 * Nobody else may bind the address of this datagram socket. libuv allows it on every socket that it takes over
 * (SO_REUSEADDR), and whoever binds last gets what arrives.
 */
export function bindAlone(fd: number): void {
  setIntegerOption(fd, c.SOL_SOCKET, c.SO_REUSEADDR, 0);
}

/** Another descriptor of the same open socket, close-on-exec. Throws a MeshError. */
export function duplicateDescriptor(fd: number): number {
  const copy = libc.fcntl(fd, c.F_DUPFD_CLOEXEC, 0);
  if (copy < 0)
    throw new MeshError('system', 'kernel', `descriptor ${fd}: ${describeErrno('fcntl', libc.errno())}`);
  return copy;
}
