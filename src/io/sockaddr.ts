import type { Endpoint, Ip } from '../model/address.ts';
import { isIpv6, parseIp } from '../model/address.ts';
import { AF_INET, AF_INET6 } from './constants.ts';
import { SOCKADDR_IN_SIZE, SOCKADDR_IN6_SIZE } from './layout.ts';

/** A socket address in the kernel's form; `bytes` is longer than `size` says. */
interface SocketAddress {
  readonly family: typeof AF_INET | typeof AF_INET6;
  readonly bytes: Uint8Array;
  readonly size: number;
}

const MAPPED_PREFIX_END = 20;

/**
 * One memory for all of them, outside of V8's heap: a small Uint8Array of its own is moved out of the heap, by
 * malloc, when it is passed to a foreign call.
 */
const shared = new Uint8Array(new ArrayBuffer(SOCKADDR_IN6_SIZE));
const ipv4Address: SocketAddress = { family: AF_INET, bytes: shared, size: SOCKADDR_IN_SIZE };
const ipv6Address: SocketAddress = { family: AF_INET6, bytes: shared, size: SOCKADDR_IN6_SIZE };

/**
 * An endpoint in the kernel's form, valid until the next call. Port 0 is let through: the kernel then picks one.
 */
export function encodeSocketAddress(endpoint: { readonly ip: Ip; readonly port: number }): SocketAddress {
  const { ip, port } = endpoint;
  shared.fill(0);
  writePort(shared, port);
  if (isIpv6(ip)) {
    shared[0] = AF_INET6;
    writeIpv6(shared, 8, ip);
    return ipv6Address;
  }
  shared[0] = AF_INET;
  writeIpv4(shared, 4, ip);
  return ipv4Address;
}

/** Reads what the kernel wrote; undefined when the family is neither IPv4 nor IPv6. Mapped IPv4 is folded. */
export function decodeSocketAddress(bytes: Uint8Array): Endpoint | undefined {
  const family = bytes[0]! | (bytes[1]! << 8);
  const port = (bytes[2]! << 8) | bytes[3]!;
  if (family === AF_INET) return { ip: ipv4At(bytes, 4), port };
  if (family !== AF_INET6) return undefined;
  if (isMapped(bytes)) return { ip: ipv4At(bytes, MAPPED_PREFIX_END), port };
  return { ip: ipv6At(bytes), port };
}

/** Writes an address in network order: 4 bytes, or 16 that were 0 before. */
export function writeIp(bytes: Uint8Array, offset: number, ip: Ip): void {
  if (isIpv6(ip)) writeIpv6(bytes, offset, ip);
  else writeIpv4(bytes, offset, ip);
}

function writePort(bytes: Uint8Array, port: number): void {
  bytes[2] = port >> 8;
  bytes[3] = port & 0xff;
}

function writeIpv4(bytes: Uint8Array, offset: number, ip: Ip): void {
  let octet = 0;
  let at = offset;
  for (let i = 0; i < ip.length; i++) {
    const code = ip.charCodeAt(i);
    if (code === 0x2e) {
      bytes[at++] = octet;
      octet = 0;
    } else {
      octet = octet * 10 + code - 0x30;
    }
  }
  bytes[at] = octet;
}

function writeIpv6(bytes: Uint8Array, offset: number, ip: Ip): void {
  const [head = '', tail] = ip.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  for (let i = 0; i < left.length; i++) writeGroup(bytes, offset + i * 2, left[i]!);
  for (let i = 0; i < right.length; i++) writeGroup(bytes, offset + (8 - right.length + i) * 2, right[i]!);
}

function writeGroup(bytes: Uint8Array, at: number, text: string): void {
  const group = Number.parseInt(text, 16);
  bytes[at] = group >> 8;
  bytes[at + 1] = group & 0xff;
}

function isMapped(bytes: Uint8Array): boolean {
  for (let i = 8; i < 18; i++) if (bytes[i] !== 0) return false;
  return bytes[18] === 0xff && bytes[19] === 0xff;
}

function ipv4At(bytes: Uint8Array, at: number): Ip {
  return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}` as Ip;
}

function ipv6At(bytes: Uint8Array): Ip {
  let text = '';
  for (let i = 8; i < 24; i += 2) {
    text += `${i === 8 ? '' : ':'}${((bytes[i]! << 8) | bytes[i + 1]!).toString(16)}`;
  }
  // The canonical form is decided in one place, the model. The text is an address by construction.
  return parseIp(text)!;
}
