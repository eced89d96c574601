import { writeIp } from '../io/sockaddr.ts';
import { type Endpoint, isIpv6 } from '../model/address.ts';
import type { NodeName } from '../model/service.ts';

/*
 * Version 2 of the PROXY protocol, sending side: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, 2.2.
 */

/** Bytes 1 to 12 of every header. */
const SIGNATURE = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
const FIXED_SIZE = 16;
/** Version 2 with the command LOCAL (the proxy speaks for itself: the receiver uses the real endpoints) or PROXY. */
const VERSION_LOCAL = 0x20;
const VERSION_PROXY = 0x21;
const UNSPECIFIED = 0x00;
const TCP_OVER_IPV4 = 0x11;
const TCP_OVER_IPV6 = 0x21;
const TLV_HEADER = 3;
/** An IPv4 address as IPv6: 10 bytes 0, 2 bytes 0xff, the address. */
const MAPPED_ZEROS = 10;
const MAPPED_PREFIX = 12;

/** Types of our own (PP2_TYPE_MIN_CUSTOM is 0xE0): the program that called, and the node it called from. */
const TLV_CALLER_PROGRAM = 0xe0;
const TLV_CALLER_NODE = 0xe1;

/** Who stands behind a connection, as far as it is known and believed. */
export interface KnownCaller {
  /** Where the caller's own connection came from. */
  readonly address: Endpoint | undefined;
  readonly node: NodeName | undefined;
  /** Its program, as its host's kernel says. */
  readonly program: string | undefined;
}

/**
 * The header for a connection of `caller` to `destination`. Families that differ are both written as IPv6, IPv4
 * mapped. Without an address the command is LOCAL. At most 600 bytes (names are bounded), so it is one segment.
 */
export function encodeProxyHeader(caller: KnownCaller, destination: Endpoint): Uint8Array {
  const { address } = caller;
  const wide = address !== undefined && (isIpv6(address.ip) || isIpv6(destination.ip));
  const addressSize = address === undefined ? 0 : wide ? 36 : 12;
  const program = caller.program === undefined ? undefined : Buffer.from(caller.program, 'latin1');
  const node = caller.node === undefined ? undefined : Buffer.from(caller.node, 'latin1');
  const length = addressSize + sizeOfTlv(program) + sizeOfTlv(node);
  const header = Buffer.alloc(FIXED_SIZE + length);
  header.set(SIGNATURE);
  header[12] = address === undefined ? VERSION_LOCAL : VERSION_PROXY;
  header[13] = address === undefined ? UNSPECIFIED : wide ? TCP_OVER_IPV6 : TCP_OVER_IPV4;
  header.writeUInt16BE(length, 14);
  let at = FIXED_SIZE;
  if (address !== undefined) {
    at = writeAddress(header, at, address, wide);
    at = writeAddress(header, at, destination, wide);
    at = header.writeUInt16BE(address.port, at);
    at = header.writeUInt16BE(destination.port, at);
  }
  at = writeTlv(header, at, TLV_CALLER_PROGRAM, program);
  writeTlv(header, at, TLV_CALLER_NODE, node);
  return header;
}

/** The header was zero before. */
function writeAddress(header: Buffer, at: number, { ip }: Endpoint, wide: boolean): number {
  if (!wide || isIpv6(ip)) {
    writeIp(header, at, ip);
    return at + (wide ? 16 : 4);
  }
  header.fill(0xff, at + MAPPED_ZEROS, at + MAPPED_PREFIX);
  writeIp(header, at + MAPPED_PREFIX, ip);
  return at + 16;
}

function sizeOfTlv(value: Buffer | undefined): number {
  return value === undefined ? 0 : TLV_HEADER + value.length;
}

function writeTlv(header: Buffer, at: number, type: number, value: Buffer | undefined): number {
  if (value === undefined) return at;
  header[at] = type;
  header.writeUInt16BE(value.length, at + 1);
  header.set(value, at + TLV_HEADER);
  return at + TLV_HEADER + value.length;
}
