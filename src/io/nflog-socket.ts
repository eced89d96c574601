import { MeshError } from '../model/errors.ts';
import * as c from './constants.ts';
import { describeErrno } from './failure.ts';
import * as libc from './libc.ts';
import { openNetlinkSocket } from './netlink.ts';
import { type BegunConnection, decodeNetlinkAnswer, decodeNflog, encodeNflogBind } from './nflog.ts';

const NETLINK_NETFILTER = 12;
const SO_RCVBUF = 8;
const SO_RCVBUFFORCE = 33;
/** About 2500 packets that wait to be read (measured); what comes while it is full is lost, and counted. */
const RECEIVE_BUFFER_BYTES = 1 << 20;
/** A message of one packet is about 200 bytes; what is longer is cut off, and passed by. */
const DATAGRAM_BYTES = 8192;
/** The kernel answers a request while it is being sent; packets of an earlier owner's rules may come before it. */
const MOST_BEFORE_ANSWER = 64;
const U32 = 2 ** 32;

/**
 * One NFLOG group of this network namespace: TCP connections that begin, as rules show them. Needs CAP_NET_ADMIN in
 * the process that opens and closes it. The descriptor is readable when there is something.
 */
export class NflogSocket {
  readonly fd: number;
  /** Packets that the rules showed and that never arrived, because nobody read in time. */
  lost = 0;
  readonly #datagram = new Uint8Array(new ArrayBuffer(DATAGRAM_BYTES));
  readonly #view = new DataView(this.#datagram.buffer);
  #next: number | undefined;

  /** Throws a MeshError `system` when the group is taken by another program or the capability is missing (both EPERM). */
  constructor(group: number) {
    this.fd = openNetlinkSocket(NETLINK_NETFILTER);
    try {
      this.#setBuffer();
      this.#bind(group);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Hands out what waits, at most `most` packets; how many there were. Fewer than `most`: there is nothing more. */
  read(most: number, take: (begun: BegunConnection) => void): number {
    let count = 0;
    while (count < most) {
      const length = libc.recv(this.fd, this.#datagram, DATAGRAM_BYTES, c.MSG_DONTWAIT);
      if (length < 0) {
        // ENOBUFS says once that packets were lost: their numbers tell how many.
        if (libc.errno() === c.ENOBUFS) continue;
        return count;
      }
      count++;
      decodeNflog(this.#view, length, { numbered: (number) => this.#count(number), connection: take });
    }
    return count;
  }

  close(): void {
    libc.close(this.fd);
  }

  #count(number: number): void {
    if (this.#next !== undefined) this.lost += (number - this.#next + U32) % U32;
    this.#next = (number + 1) % U32;
  }

  #setBuffer(): void {
    const size = new Uint8Array(new Uint32Array([RECEIVE_BUFFER_BYTES]).buffer);
    // Beyond net.core.rmem_max only with privileges over the whole machine: then as much as there may be.
    if (libc.setsockopt(this.fd, c.SOL_SOCKET, SO_RCVBUFFORCE, size, 4) < 0)
      libc.setsockopt(this.fd, c.SOL_SOCKET, SO_RCVBUF, size, 4);
  }

  #bind(group: number): void {
    const request = encodeNflogBind(group);
    if (libc.send(this.fd, request, request.length, 0) !== request.length) throw failure(libc.errno());
    for (let read = 0; read < MOST_BEFORE_ANSWER; read++) {
      const length = libc.recv(this.fd, this.#datagram, DATAGRAM_BYTES, c.MSG_DONTWAIT);
      if (length < 0) throw failure(libc.errno());
      const errno = decodeNetlinkAnswer(this.#view, length);
      if (errno === 0) return;
      if (errno !== undefined) throw failure(errno);
    }
    throw failure(0);
  }
}

function failure(errno: number): MeshError {
  return new MeshError('system', 'kernel', describeErrno('NFLOG group', errno));
}
