import type { Ip } from '../model/address.ts';
import { isIpv6 } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';
import * as c from './constants.ts';
import { describeErrno } from './failure.ts';
import * as libc from './libc.ts';
import { INTEREST_ACCEPT, type Poller, type PollTarget } from './poller.ts';
import { decodeSocketAddress, encodeSocketAddress } from './sockaddr.ts';
import { TcpChannel } from './socket.ts';
import { closeWithReset, type Keepalive, setIntegerOption, setStreamOptions } from './socket-options.ts';

interface ListenOptions {
  readonly ip: Ip;
  /** 0: the kernel picks one. */
  readonly port: number;
  /** Connections that wait to be accepted; the kernel caps it at net.core.somaxconn. */
  readonly backlog: number;
  /** For IPv6 addresses: refuse IPv4 (default: `::` takes both). */
  readonly v6only?: boolean;
  /** Bind to an address that the host does not have yet. */
  readonly freebind?: boolean;
}

/** A listening socket, close-on-exec and non-blocking. Throws a MeshError that names address and reason. */
export function createListeningSocket(options: ListenOptions): number {
  const address = encodeSocketAddress(options);
  const fd = libc.socket(address.family, c.SOCK_STREAM | c.SOCK_NONBLOCK | c.SOCK_CLOEXEC, 0);
  if (fd < 0) throw listenError(options, 'socket', libc.errno());
  setIntegerOption(fd, c.SOL_SOCKET, c.SO_REUSEADDR, 1);
  if (isIpv6(options.ip)) setIntegerOption(fd, c.SOL_IPV6, c.IPV6_V6ONLY, options.v6only === true ? 1 : 0);
  if (options.freebind === true) setIntegerOption(fd, c.SOL_IP, c.IP_FREEBIND, 1);
  if (libc.bind(fd, address.bytes, address.size) < 0) throw abandon(fd, options, 'bind');
  if (libc.listen(fd, options.backlog) < 0) throw abandon(fd, options, 'listen');
  return fd;
}

function abandon(fd: number, options: ListenOptions, call: string): MeshError {
  const error = listenError(options, call, libc.errno());
  libc.close(fd);
  return error;
}

function listenError(options: ListenOptions, call: string, errno: number): MeshError {
  const where = isIpv6(options.ip) ? `[${options.ip}]:${options.port}` : `${options.ip}:${options.port}`;
  return new MeshError('system', 'kernel', `cannot listen on ${where}: ${describeErrno(call, errno)}`);
}

interface TcpListenerOptions {
  /** Connections accepted in one turn: bounds how uneven the workers that share the socket can become. */
  readonly acceptBatch: number;
  /** Set on the listening socket; accepted ones inherit it, which saves six calls for each. */
  readonly keepalive?: Keepalive;
  /** A new connection, paused, without handler. */
  onConnection(channel: TcpChannel): void;
  /** A connection was reset at once, for want of a descriptor. */
  onRejected?(): void;
}

/** How long nothing is accepted when not even the reserve helps. */
const STARVED_PAUSE_MS = 100;

/** Accepts from a listening socket, which may be shared with other processes. */
export class TcpListener implements PollTarget {
  /** Connections accepted. */
  accepted = 0;
  /** Connections reset at once because the process or the system was out of descriptors. */
  rejected = 0;

  readonly #poller: Poller;
  readonly #fd: number;
  readonly #options: TcpListenerOptions;
  readonly #address = new Uint8Array(128);
  readonly #addressSize = new Uint8Array(4);
  /** A descriptor to give up when there are no others, so that a caller is refused instead of left waiting. */
  #reserve: number;
  #paused = false;
  #starved: NodeJS.Timeout | undefined;
  #closed = false;

  /** Takes the descriptor over; `close` closes it (in this process). */
  constructor(poller: Poller, fd: number, options: TcpListenerOptions) {
    this.#poller = poller;
    this.#fd = fd;
    this.#options = options;
    setStreamOptions(fd, options.keepalive);
    const flags = libc.fcntl(fd, c.F_GETFL, 0);
    libc.fcntl(fd, c.F_SETFL, flags | c.O_NONBLOCK);
    this.#reserve = this.#takeReserve();
    poller.register(fd, INTEREST_ACCEPT, this);
  }

  /** Accepts what waits in the queue now, at most so many. */
  takeWaiting(most: number): void {
    for (let taken = 0; taken < most; ) {
      const before = this.accepted + this.rejected;
      this.ready();
      const now = this.accepted + this.rejected - before;
      if (now === 0) return;
      taken += now;
    }
  }

  /** Leaves new connections in the queue, for other processes that share the socket, or for later. */
  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#updateInterest();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#updateInterest();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#starved);
    // The socket may be open in other processes: then closing here does not take it out of the set.
    this.#poller.unregister(this.#fd);
    libc.close(this.#fd);
    if (this.#reserve >= 0) libc.close(this.#reserve);
  }

  /** @internal for the poller */
  ready(): void {
    for (let i = 0; i < this.#options.acceptBatch && !this.#paused && !this.#closed; i++) {
      new DataView(this.#addressSize.buffer).setUint32(0, this.#address.length, true);
      const fd = this.#accept();
      if (fd >= 0) {
        this.accepted++;
        this.#deliver(TcpChannel.adopt(this.#poller, fd, decodeSocketAddress(this.#address)));
        continue;
      }
      const errno = libc.errno();
      if (errno === c.EAGAIN) return;
      if (errno === c.EMFILE || errno === c.ENFILE) {
        if (!this.#rejectOne()) return;
      } else if (errno === c.ENOBUFS || errno === c.ENOMEM) {
        this.#starve();
        return;
      }
      // Anything else concerns the one connection that was taken off the queue (accept(2): ECONNABORTED, EPROTO, …).
    }
  }

  /** @internal for the poller: the owner threw, the listener goes on. */
  failed(): void {}

  /** Errors of the owner cost the one connection, not the rest of the batch. */
  #deliver(channel: TcpChannel): void {
    try {
      this.#options.onConnection(channel);
    } catch (error) {
      channel.failed(error);
      setImmediate(() => {
        throw error;
      });
    }
  }

  #accept(): number {
    return libc.accept4(this.#fd, this.#address, this.#addressSize, c.SOCK_NONBLOCK | c.SOCK_CLOEXEC);
  }

  /** Gives up the reserve to accept one connection and reset it. False when even that did not work. */
  #rejectOne(): boolean {
    if (this.#reserve >= 0) libc.close(this.#reserve);
    const fd = this.#accept();
    if (fd >= 0) {
      this.rejected++;
      this.#options.onRejected?.();
      closeWithReset(fd);
    }
    this.#reserve = this.#takeReserve();
    if (fd >= 0 && this.#reserve >= 0) return true;
    this.#starve();
    return false;
  }

  #takeReserve(): number {
    return libc.fcntl(this.#fd, c.F_DUPFD_CLOEXEC, 0);
  }

  #starve(): void {
    if (this.#starved !== undefined) return;
    this.#starved = setTimeout(() => {
      this.#starved = undefined;
      if (this.#reserve < 0) this.#reserve = this.#takeReserve();
      this.#updateInterest();
    }, STARVED_PAUSE_MS);
    this.#updateInterest();
  }

  #updateInterest(): void {
    if (this.#closed) return;
    const idle = this.#paused || this.#starved !== undefined;
    this.#poller.modify(this.#fd, idle ? 0 : INTEREST_ACCEPT);
  }
}
