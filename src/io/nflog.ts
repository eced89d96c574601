import type { Endpoint } from '../model/address.ts';
import { AF_INET, AF_INET6 } from './constants.ts';
import { findAttribute, NETLINK_HEADER_SIZE, NLM_F_REQUEST, NLMSG_ERROR } from './netlink.ts';
import { decodeSocketAddress } from './sockaddr.ts';

/*
 * Packets that a rule `-j NFLOG --nflog-group N` shows to a program: messages of the netlink protocol NETLINK_NETFILTER
 * (include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_log.h). No I/O here. A message is the netlink header, `struct
 * nfgenmsg` (family u8, version u8, group u16 in network order) and attributes, whose numbers are in network order.
 */

const NFNL_SUBSYS_ULOG = 4;
const PACKET = (NFNL_SUBSYS_ULOG << 8) | 0;
const CONFIG = (NFNL_SUBSYS_ULOG << 8) | 1;
const NLM_F_ACK = 4;

const NFULA_IFINDEX_INDEV = 4;
const NFULA_PAYLOAD = 9;
const NFULA_UID = 11;
const NFULA_SEQ = 12;

const NFULA_CFG_CMD = 1;
const NFULA_CFG_MODE = 2;
const NFULA_CFG_NLBUFSIZ = 3;
const NFULA_CFG_QTHRESH = 5;
const NFULA_CFG_FLAGS = 6;
const NFULNL_CFG_CMD_BIND = 1;
const NFULNL_COPY_PACKET = 2;
const NFULNL_CFG_F_SEQ = 1;

const ATTRIBUTES = NETLINK_HEADER_SIZE + 4;
/** Enough of a packet for both headers: IPv4 with options and TCP without (60 + 20), IPv6 and TCP (40 + 20). */
const NFLOG_COPY_BYTES = 80;
/**
 * Buffer that the kernel makes for one message; with its default of a page a burst of fifty packets would fill the
 * socket. A message is about 200 bytes.
 */
const MESSAGE_BYTES = 512;

const IPPROTO_TCP = 6;
const TCP_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;

/** A TCP connection that begins: the packet with which it does. */
export interface BegunConnection {
  readonly source: Endpoint;
  readonly destination: Endpoint;
  /** First sequence number of the connection: a packet that is sent again has the same. */
  readonly sequence: number;
  /** User id of the program on this host, where there is one. */
  readonly uid: number | undefined;
  /** True when it came in over an interface: from a container, say. */
  readonly forwarded: boolean;
}

/** What {@link decodeNflog} found. */
export interface NflogReader {
  /** Every packet shown to this group has the next number (u32): a gap means that packets were lost. */
  numbered(sequence: number): void;
  connection(begun: BegunConnection): void;
}

/** The message that takes a group: copies of packets' first bytes, one message for each packet at once, numbered. */
export function encodeNflogBind(group: number): Uint8Array {
  const attributes: readonly (readonly [type: number, bytes: readonly number[]])[] = [
    [NFULA_CFG_CMD, [NFULNL_CFG_CMD_BIND]],
    [NFULA_CFG_MODE, [...be32(NFLOG_COPY_BYTES), NFULNL_COPY_PACKET, 0]],
    [NFULA_CFG_NLBUFSIZ, be32(MESSAGE_BYTES)],
    [NFULA_CFG_QTHRESH, be32(1)],
    [NFULA_CFG_FLAGS, [0, NFULNL_CFG_F_SEQ]],
  ];
  const body = attributes.flatMap(([type, bytes]) => {
    const padding = new Array<number>((4 - (bytes.length % 4)) % 4).fill(0);
    return [bytes.length + 4, 0, type, 0, ...bytes, ...padding];
  });
  const message = new Uint8Array(ATTRIBUTES + body.length);
  const view = new DataView(message.buffer);
  view.setUint32(0, message.length, true);
  view.setUint16(4, CONFIG, true);
  view.setUint16(6, NLM_F_REQUEST | NLM_F_ACK, true);
  view.setUint32(8, 1, true);
  view.setUint16(NETLINK_HEADER_SIZE + 2, group);
  message.set(body, ATTRIBUTES);
  return message;
}

/** The errno of the kernel's answer to a request, 0 when it agreed; undefined when this is no such answer. */
export function decodeNetlinkAnswer(message: DataView, length: number): number | undefined {
  if (length < NETLINK_HEADER_SIZE + 4 || length > message.byteLength) return undefined;
  if (message.getUint16(4, true) !== NLMSG_ERROR) return undefined;
  return 0 - message.getInt32(NETLINK_HEADER_SIZE, true);
}

/** Reads what one datagram of `length` bytes holds. What is not a TCP packet as it should be is passed by. */
export function decodeNflog(datagram: DataView, length: number, reader: NflogReader): void {
  const end = Math.min(length, datagram.byteLength);
  let at = 0;
  while (at + NETLINK_HEADER_SIZE <= end) {
    const size = datagram.getUint32(at, true);
    if (size < NETLINK_HEADER_SIZE || at + size > end) return;
    if (datagram.getUint16(at + 4, true) === PACKET && size >= ATTRIBUTES)
      readPacket(datagram, at, at + size, reader);
    at += (size + 3) & ~3;
  }
}

function readPacket(datagram: DataView, start: number, end: number, reader: NflogReader): void {
  const attributes = start + ATTRIBUTES;
  const find = (type: number, size: number): number => findAttribute(datagram, attributes, end, type, size);
  const number = find(NFULA_SEQ, 4);
  if (number >= 0) reader.numbered(datagram.getUint32(number));
  const payload = find(NFULA_PAYLOAD, 1);
  if (payload < 0) return;
  const packet = new DataView(
    datagram.buffer,
    datagram.byteOffset + payload,
    datagram.getUint16(payload - 4, true) - 4,
  );
  const family = datagram.getUint8(start + NETLINK_HEADER_SIZE);
  const ends = family === AF_INET ? readIpv4(packet) : family === AF_INET6 ? readIpv6(packet) : undefined;
  if (ends === undefined) return;
  const uid = find(NFULA_UID, 4);
  reader.connection({
    ...ends,
    uid: uid < 0 ? undefined : datagram.getUint32(uid),
    forwarded: find(NFULA_IFINDEX_INDEV, 4) >= 0,
  });
}

type Ends = Pick<BegunConnection, 'source' | 'destination' | 'sequence'>;

/** RFC 791: header length in words, fragment offset (13 bits at 6), protocol at 9, source at 12, destination at 16. */
function readIpv4(packet: DataView): Ends | undefined {
  if (packet.byteLength < 20) return undefined;
  const header = (packet.getUint8(0) & 0x0f) * 4;
  const fragment = packet.getUint16(6) & 0x1fff;
  if (packet.getUint8(0) >> 4 !== 4 || header < 20 || fragment !== 0) return undefined;
  if (packet.getUint8(9) !== IPPROTO_TCP) return undefined;
  return readTcp(packet, header, AF_INET, 12, 16);
}

/** RFC 8200: next header at 6, source at 8, destination at 24. Nobody puts extension headers before a TCP SYN. */
function readIpv6(packet: DataView): Ends | undefined {
  if (packet.byteLength < IPV6_HEADER_BYTES || packet.getUint8(0) >> 4 !== 6) return undefined;
  if (packet.getUint8(6) !== IPPROTO_TCP) return undefined;
  return readTcp(packet, IPV6_HEADER_BYTES, AF_INET6, 8, 24);
}

/** RFC 9293: ports at 0 and 2, sequence number at 4. */
function readTcp(
  packet: DataView,
  at: number,
  family: typeof AF_INET | typeof AF_INET6,
  source: number,
  destination: number,
): Ends | undefined {
  if (packet.byteLength < at + TCP_HEADER_BYTES) return undefined;
  const from = endpointOf(packet, family, source, at);
  const to = endpointOf(packet, family, destination, at + 2);
  if (from === undefined || to === undefined || to.port === 0) return undefined;
  return { source: from, destination: to, sequence: packet.getUint32(at + 4) };
}

/** By way of a socket address, so that addresses get their canonical text in one place. */
function endpointOf(
  packet: DataView,
  family: typeof AF_INET | typeof AF_INET6,
  address: number,
  port: number,
): Endpoint | undefined {
  const socketAddress = new Uint8Array(28);
  const [width, offset] = family === AF_INET ? [4, 4] : [16, 8];
  socketAddress[0] = family;
  socketAddress.set(new Uint8Array(packet.buffer, packet.byteOffset + port, 2), 2);
  socketAddress.set(new Uint8Array(packet.buffer, packet.byteOffset + address, width), offset);
  return decodeSocketAddress(socketAddress);
}

function be32(value: number): readonly number[] {
  return [value >>> 24, (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff];
}
