import { MeshError } from '../model/errors.ts';
import * as c from './constants.ts';
import { describeErrno } from './failure.ts';
import * as libc from './libc.ts';

/*
 * What all netlink conversations share (include/uapi/linux/netlink.h): a message is a header and attributes, all numbers
 * in the byte order of the host, which is little-endian on both supported architectures. Network addresses and ports in
 * the payload keep the network's order.
 */

const AF_NETLINK = 16;
const SOCK_RAW = 3;
/** `struct sockaddr_nl`: family, padding, port id (0: the kernel), groups. */
const SOCKADDR_NL_SIZE = 12;

/** `struct nlmsghdr`: length u32, type u16, flags u16, sequence u32, port id u32. */
export const NETLINK_HEADER_SIZE = 16;
/** A message of this type carries a negative errno, or 0 for "done", as i32 after its header. */
export const NLMSG_ERROR = 2;
export const NLM_F_REQUEST = 1;

/** `struct nlattr`: length u16 with this header, type u16. */
const ATTRIBUTE_HEADER_SIZE = 4;
/** The two highest bits of a type are flags (nested, network byte order). */
const ATTRIBUTE_TYPE_MASK = 0x3fff;

/**
 * A socket for one netlink protocol: close-on-exec, non-blocking, connected to the kernel, so that nothing that another
 * process sends arrives on it. Throws a MeshError with the kernel's reason.
 */
export function openNetlinkSocket(protocol: number): number {
  const fd = libc.socket(AF_NETLINK, SOCK_RAW | c.SOCK_NONBLOCK | c.SOCK_CLOEXEC, protocol);
  if (fd < 0) throw new MeshError('system', 'kernel', `netlink: ${describeErrno('socket', libc.errno())}`);
  const kernel = new Uint8Array(new ArrayBuffer(SOCKADDR_NL_SIZE));
  kernel[0] = AF_NETLINK;
  if (libc.connect(fd, kernel, kernel.length) < 0) {
    const errno = libc.errno();
    libc.close(fd);
    throw new MeshError('system', 'kernel', `netlink: ${describeErrno('connect', errno)}`);
  }
  return fd;
}

/**
 * Where the payload of the first attribute of a type begins; -1 when there is none with at least `size` bytes of it.
 * Reads nothing past `end`, whatever the lengths say.
 */
export function findAttribute(
  message: DataView,
  start: number,
  end: number,
  type: number,
  size: number,
): number {
  let at = start;
  while (at + ATTRIBUTE_HEADER_SIZE <= end) {
    const length = message.getUint16(at, true);
    if (length < ATTRIBUTE_HEADER_SIZE || at + length > end) return -1;
    if ((message.getUint16(at + 2, true) & ATTRIBUTE_TYPE_MASK) === type) {
      return length >= ATTRIBUTE_HEADER_SIZE + size ? at + ATTRIBUTE_HEADER_SIZE : -1;
    }
    at += (length + 3) & ~3;
  }
  return -1;
}
