import { type Endpoint, isIpv6 } from '../model/address.ts';
import { AF_INET, AF_INET6, MSG_DONTWAIT } from './constants.ts';
import * as libc from './libc.ts';
import { findAttribute, NETLINK_HEADER_SIZE, NLM_F_REQUEST, openNetlinkSocket } from './netlink.ts';
import { writeIp } from './sockaddr.ts';

/*
 * Questions about one TCP socket of this network namespace, answered from the kernel's hash table
 * (include/uapi/linux/sock_diag.h, inet_diag.h; sock_diag(7)). The kernel answers while the question is being sent:
 * there is nothing to wait for.
 */

const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const IPPROTO_TCP = 6;
const TCP_LISTEN = 10;
/** The id of the cgroup of the socket, u64; since Linux 5.8. */
const INET_DIAG_CGROUP_ID = 21;

/** `struct inet_diag_req_v2` after the header: family, protocol, extensions, padding, states u32, id. */
const QUESTION_SIZE = NETLINK_HEADER_SIZE + 56;
const QUESTION_ID = NETLINK_HEADER_SIZE + 8;
/** `struct inet_diag_msg` after the header: family, state, timer, retransmits, id, four u32, user id, inode; 72 bytes. */
const ANSWER_STATE = NETLINK_HEADER_SIZE + 1;
const ANSWER_USER = NETLINK_HEADER_SIZE + 64;
const ANSWER_INODE = NETLINK_HEADER_SIZE + 68;
const ANSWER_ATTRIBUTES = NETLINK_HEADER_SIZE + 72;
/** `struct inet_diag_sockid`: two ports, two addresses of 16 bytes, interface u32, cookie 8 bytes. */
const ID_SOURCE = 4;
const ID_DESTINATION = 20;
const ID_COOKIE = 40;
const ADDRESS_SIZE = 16;

/** An answer is about 124 bytes; what an attribute of a newer kernel adds is cut off, and not needed. */
const ANSWER_BUFFER = 1024;
/** Answers to earlier questions that are skipped before one is given up. There should be none. */
const MOST_STALE = 8;

/** Who made a socket. */
export interface SocketOwner {
  /** User id, as seen from the user namespace of this process. */
  readonly uid: number;
  /** Id of the cgroup: the inode number of its directory. 0 where the kernel does not tell (before 5.8). */
  readonly cgroup: number;
}

interface MutableOwner {
  uid: number;
  cgroup: number;
}

/** Writes the question for the TCP socket that has these two ends, its own first. */
function encodeQuestion(
  bytes: Uint8Array,
  view: DataView,
  sequence: number,
  local: Endpoint,
  remote: Endpoint,
): void {
  const ipv6 = isIpv6(local.ip);
  view.setUint32(8, sequence, true);
  bytes[NETLINK_HEADER_SIZE] = ipv6 ? AF_INET6 : AF_INET;
  view.setUint16(QUESTION_ID, local.port);
  view.setUint16(QUESTION_ID + 2, remote.port);
  writeIp(bytes, QUESTION_ID + ID_SOURCE, local.ip);
  writeIp(bytes, QUESTION_ID + ID_DESTINATION, remote.ip);
}

/**
 * Reads an answer of `length` bytes to the question with this sequence number into `owner`. `absent`: there is no such
 * socket. `nobody`: there is one, and it belongs to nobody any more: inode 0 says that its program has closed it, and
 * then the user id is 0 too, which would read as root. `stale`: an answer to another question.
 */
export function decodeOwner(
  message: DataView,
  length: number,
  sequence: number,
  owner: MutableOwner,
): 'owner' | 'nobody' | 'absent' | 'stale' {
  if (length < NETLINK_HEADER_SIZE || length > message.byteLength) return 'absent';
  if (message.getUint32(8, true) !== sequence) return 'stale';
  const type = message.getUint16(4, true);
  if (type !== SOCK_DIAG_BY_FAMILY || length < ANSWER_ATTRIBUTES) return 'absent';
  // Where no connection matches, the kernel answers with whoever listens on that port.
  if (message.getUint8(ANSWER_STATE) === TCP_LISTEN) return 'absent';
  if (message.getUint32(ANSWER_INODE, true) === 0) return 'nobody';
  owner.uid = message.getUint32(ANSWER_USER, true);
  const cgroup = findAttribute(message, ANSWER_ATTRIBUTES, length, INET_DIAG_CGROUP_ID, 8);
  const id = cgroup < 0 ? 0 : message.getUint32(cgroup + 4, true) * 2 ** 32 + message.getUint32(cgroup, true);
  // The upper half counts how often the lower one was used up: past 2^53 no kernel lives so long.
  owner.cgroup = Number.isSafeInteger(id) ? id : 0;
  return 'owner';
}

/**
 * Asks the kernel whose a TCP socket is. One socket for the life of a worker, one question at a time, nothing is
 * allocated: 3.6 µs for question and answer (Linux 6.18, one core of a virtual machine).
 */
export class SockDiag {
  readonly #fd: number;
  readonly #question = new Uint8Array(new ArrayBuffer(QUESTION_SIZE));
  readonly #questionView = new DataView(this.#question.buffer);
  readonly #answer = new Uint8Array(new ArrayBuffer(ANSWER_BUFFER));
  readonly #answerView = new DataView(this.#answer.buffer);
  readonly #owner: MutableOwner = { uid: 0, cgroup: 0 };
  #sequence = 0;

  /** Throws a MeshError where the kernel has no such sockets, or none are allowed. */
  constructor() {
    this.#fd = openNetlinkSocket(NETLINK_SOCK_DIAG);
    const view = this.#questionView;
    view.setUint32(0, QUESTION_SIZE, true);
    view.setUint16(4, SOCK_DIAG_BY_FAMILY, true);
    view.setUint16(6, NLM_F_REQUEST, true);
    this.#question[NETLINK_HEADER_SIZE + 1] = IPPROTO_TCP;
    view.setUint32(NETLINK_HEADER_SIZE + 4, 0xffffffff, true); // in any state
    this.#question.fill(0xff, QUESTION_ID + ID_COOKIE); // whatever its cookie
  }

  /**
   * The owner of the socket with these ends, valid until the next call; `nobody` and `absent` as above. IPv4 ends find
   * the IPv4-mapped sockets of IPv6 programs too: the kernel keeps both in one table under their IPv4 addresses.
   */
  owner(local: Endpoint, remote: Endpoint): SocketOwner | 'nobody' | 'absent' {
    if (isIpv6(local.ip) !== isIpv6(remote.ip)) return 'absent';
    this.#sequence = (this.#sequence + 1) >>> 0;
    this.#question.fill(0, QUESTION_ID + ID_SOURCE, QUESTION_ID + ID_DESTINATION + ADDRESS_SIZE);
    encodeQuestion(this.#question, this.#questionView, this.#sequence, local, remote);
    if (libc.send(this.#fd, this.#question, QUESTION_SIZE, MSG_DONTWAIT) !== QUESTION_SIZE) return 'absent';
    for (let read = 0; read < MOST_STALE; read++) {
      const length = libc.recv(this.#fd, this.#answer, ANSWER_BUFFER, MSG_DONTWAIT);
      if (length < 0) return 'absent';
      const outcome = decodeOwner(this.#answerView, length, this.#sequence, this.#owner);
      if (outcome === 'owner') return this.#owner;
      if (outcome !== 'stale') return outcome;
    }
    return 'absent';
  }

  close(): void {
    libc.close(this.#fd);
  }
}
