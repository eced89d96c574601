import { type Endpoint, isIpv6 } from '../model/address.ts';
import { AF_INET, AF_INET6, MSG_DONTWAIT } from './constants.ts';
import * as libc from './libc.ts';
import { findAttribute, NETLINK_HEADER_SIZE, NLM_F_REQUEST, openNetlinkSocket } from './netlink.ts';
import { writeIp } from './sockaddr.ts';

/*
 * One question to connection tracking (include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h). Needs
 * CAP_NET_ADMIN in the process that asks. The kernel answers while the question is being sent.
 */

const NETLINK_NETFILTER = 12;
const IPPROTO_TCP = 6;
/** NFNL_SUBSYS_CTNETLINK (1), and what is asked (IPCTNL_MSG_CT_GET) or answered (IPCTNL_MSG_CT_NEW). */
const CT_GET = (1 << 8) | 1;
const CT_NEW = 1 << 8;
/** `struct nfgenmsg`: family, version, resource id be16. */
const GENERAL_SIZE = 4;
const NESTED = 0x8000;
const TUPLE_ORIGINAL = 1;
const TUPLE_REPLY = 2;
const TUPLE_IP = 1;
const TUPLE_PROTOCOL = 2;
const IP_SOURCE = { 4: 1, 16: 3 } as const;
const IP_DESTINATION = { 4: 2, 16: 4 } as const;
const PROTOCOL_NUMBER = 1;
const PROTOCOL_SOURCE = 2;
const PROTOCOL_DESTINATION = 3;

/** The longest question (IPv6) has 100 bytes; an answer about 300. */
const QUESTION_BUFFER = 128;
const ANSWER_BUFFER = 2048;
/** Answers to earlier questions that are skipped. There should be none. */
const MOST_STALE = 8;

/** Writes a question; answers its length. */
function encodeQuestion(bytes: Uint8Array, sequence: number, from: Endpoint, to: Endpoint): number {
  const view = new DataView(bytes.buffer);
  bytes.fill(0);
  const ipv6 = isIpv6(from.ip);
  const size = ipv6 ? 16 : 4;
  let at = NETLINK_HEADER_SIZE;
  bytes[at] = ipv6 ? AF_INET6 : AF_INET;
  at += GENERAL_SIZE;
  const open = (type: number): number => {
    view.setUint16(at + 2, type | NESTED, true);
    at += 4;
    return at - 4;
  };
  const close = (start: number): void => view.setUint16(start, at - start, true);
  const attribute = (type: number, length: number): number => {
    view.setUint16(at, 4 + length, true);
    view.setUint16(at + 2, type, true);
    const payload = at + 4;
    at = payload + ((length + 3) & ~3);
    return payload;
  };
  const tuple = open(TUPLE_REPLY);
  const ip = open(TUPLE_IP);
  writeIp(bytes, attribute(IP_SOURCE[size], size), from.ip);
  writeIp(bytes, attribute(IP_DESTINATION[size], size), to.ip);
  close(ip);
  const protocol = open(TUPLE_PROTOCOL);
  bytes[attribute(PROTOCOL_NUMBER, 1)] = IPPROTO_TCP;
  view.setUint16(attribute(PROTOCOL_SOURCE, 2), from.port);
  view.setUint16(attribute(PROTOCOL_DESTINATION, 2), to.port);
  close(protocol);
  close(tuple);
  view.setUint32(0, at, true);
  view.setUint16(4, CT_GET, true);
  view.setUint16(6, NLM_F_REQUEST, true);
  view.setUint32(8, sequence, true);
  return at;
}

/** The source port of the original direction; undefined when there is none in it, `stale` for another question's. */
export function decodeSourcePort(
  message: DataView,
  length: number,
  sequence: number,
): number | 'stale' | undefined {
  if (length < NETLINK_HEADER_SIZE || length > message.byteLength) return undefined;
  if (message.getUint32(8, true) !== sequence) return 'stale';
  if (message.getUint16(4, true) !== CT_NEW) return undefined;
  const tuple = nested(message, NETLINK_HEADER_SIZE + GENERAL_SIZE, length, TUPLE_ORIGINAL);
  const protocol = tuple && nested(message, tuple.start, tuple.end, TUPLE_PROTOCOL);
  if (protocol === undefined) return undefined;
  const port = findAttribute(message, protocol.start, protocol.end, PROTOCOL_SOURCE, 2);
  return port < 0 ? undefined : message.getUint16(port);
}

function nested(
  message: DataView,
  start: number,
  end: number,
  type: number,
): { readonly start: number; readonly end: number } | undefined {
  if (start > end) return undefined;
  const payload = findAttribute(message, start, end, type, 0);
  return payload < 0
    ? undefined
    : { start: payload, end: payload - 4 + message.getUint16(payload - 4, true) };
}

/** Connection tracking of this network namespace. */
export class Conntrack {
  readonly #fd: number;
  readonly #question = new Uint8Array(new ArrayBuffer(QUESTION_BUFFER));
  readonly #answer = new Uint8Array(new ArrayBuffer(ANSWER_BUFFER));
  readonly #answerView = new DataView(this.#answer.buffer);
  #sequence = 0;

  /** Throws a MeshError when no socket can be made. */
  constructor() {
    this.#fd = openNetlinkSocket(NETLINK_NETFILTER);
  }

  /**
   * The port that the caller of a redirected connection really has: two connections from one port to different
   * destinations meet on one listener, and the kernel gives the second one another port there.
   * @param listener the local end of the accepted connection.
   * @param client its remote end.
   */
  sourcePort(listener: Endpoint, client: Endpoint): number | undefined {
    if (isIpv6(listener.ip) !== isIpv6(client.ip)) return undefined;
    this.#sequence = (this.#sequence + 1) >>> 0;
    const length = encodeQuestion(this.#question, this.#sequence, listener, client);
    if (libc.send(this.#fd, this.#question, length, MSG_DONTWAIT) !== length) return undefined;
    for (let read = 0; read < MOST_STALE; read++) {
      const got = libc.recv(this.#fd, this.#answer, ANSWER_BUFFER, MSG_DONTWAIT);
      if (got < 0) return undefined;
      const port = decodeSourcePort(this.#answerView, got, this.#sequence);
      if (port !== 'stale') return port;
    }
    return undefined;
  }

  close(): void {
    libc.close(this.#fd);
  }
}
