import { type Endpoint, type Ip, isIpv6 } from '../model/address.ts';
import type { ErrorCode } from '../model/errors.ts';
import type { Channel, ChannelClose, ChannelHandler } from './channel.ts';
import * as c from './constants.ts';
import type { Deadline } from './deadlines.ts';
import { describeErrno, errorCodeOf } from './failure.ts';
import * as libc from './libc.ts';
import { PendingBytes } from './pending.ts';
import { EVENTS_BROKEN, INTEREST_STREAM, type Poller, type PollTarget } from './poller.ts';
import { encodeSocketAddress } from './sockaddr.ts';
import {
  closeWithReset,
  DEFAULT_KEEPALIVE,
  type Keepalive,
  localEndpointOf,
  remoteEndpointOf,
  setIntegerOption,
  setKeepalive,
  setNoDelay,
  setUrgentInline,
  takeSocketError,
} from './socket-options.ts';

/** Bytes asked for in one `recv` at first; doubled after each full one, back to this after backpressure. */
const FIRST_READ_BYTES = 64 << 10;
/** With more than this held for slow readers over all sockets, every socket reads {@link FRUGAL_READ_BYTES} at most. */
const HELD_BYTES_SOFT_LIMIT = 64 << 20;
const FRUGAL_READ_BYTES = 16 << 10;
/** Bound on `recv` calls of one socket in one turn, so that a bulk transfer does not keep the others waiting. */
const READS_PER_TURN = 4;
/**
 * Keepalive is set on connections that lived this long, or a quarter of its idle time if that is less: most end before,
 * and three calls are spared.
 */
const KEEPALIVE_AFTER_MS = 10_000;
const KEEPALIVE_AFTER_SHARE = 0.25;
/** A first write under this size is one segment whatever the path's MTU, so Nagle's rule does not hold it back. */
const ONE_SEGMENT_BYTES = 512;
const SEND_FLAGS = c.MSG_NOSIGNAL | c.MSG_DONTWAIT;
/** The last segment waits for what follows: an answer and the end of its connection make one packet. */
const SEND_MORE_FLAGS = SEND_FLAGS | c.MSG_MORE;

interface ConnectOptions {
  /** Bound on the three-way handshake; `close` with `timeout` follows. At most 100 ms late. */
  readonly timeoutMs: number;
  /** Address to connect from; the port is chosen late, so that one address is not limited to its 28,232 ports. */
  readonly localIp?: Ip;
  readonly keepalive?: Keepalive;
}

/** Somebody who waits for a socket that is made elsewhere. */
export interface SocketWaiter {
  /** False when it waits no more. */
  take(fd: number): boolean;
  /** There will be none. */
  fail(reason: ErrorCode, detail: string): void;
}

/**
 * `connecting` → `open` → `closing` → `closed`, and `open` → `detached`. From `closing` on the descriptor is free and
 * only the call of `handler.close` is due.
 */
type State = 'connecting' | 'open' | 'closing' | 'closed' | 'detached';

const noHandler: ChannelHandler = { data() {}, end() {}, drain() {}, close() {} };

/** A non-blocking TCP socket (or any stream socket) on a {@link Poller}. */
export class TcpChannel implements Channel, PollTarget, Deadline {
  handler: ChannelHandler = noHandler;
  /** Bytes handed to the owner. */
  bytesRead = 0;
  /** Bytes taken by the kernel. */
  bytesWritten = 0;
  /** While connecting, the end of the time for it; then, when to set keepalive. On the clock of `performance.now()`. */
  deadline = 0;
  place = -1;

  readonly #poller: Poller;
  #fd: number;
  #state: State;
  #pending: PendingBytes | undefined;
  #paused = true;
  /** The kernel may have bytes, an end or an error for us. */
  #readable = false;
  /** A short read does not mean that nothing is left: FIN is known to be there, or urgent data was seen. */
  #readToTheEnd = false;
  /** The other side has sent its FIN: after the bytes that are left, `recv` gives 0. */
  #finArrived = false;
  #readSize = FIRST_READ_BYTES;
  #reading = false;
  #readEnded = false;
  #ending = false;
  #writeEnded = false;
  /** `write` returned false. */
  #blocked = false;
  /** errno of a failed `send`: the connection is over as soon as what arrived before has been read. */
  #broken = 0;
  #resumeTask: (() => void) | undefined;
  /** Options that are still to be set on the descriptor; undefined on accepted sockets, which inherited them. */
  #keepalive: Keepalive | undefined;
  #delayed = false;
  #local: Endpoint | undefined;
  #remote: Endpoint | undefined;

  private constructor(poller: Poller, fd: number, state: State, remote: Endpoint | undefined) {
    this.#poller = poller;
    this.#fd = fd;
    this.#state = state;
    this.#remote = remote;
  }

  /**
   * Connects to an endpoint. Never throws: whatever goes wrong, too few descriptors included, is told by
   * `close`, after this returned.
   */
  static connect(poller: Poller, endpoint: Endpoint, options: ConnectOptions): TcpChannel {
    const family = isIpv6(endpoint.ip) ? c.AF_INET6 : c.AF_INET;
    const fd = libc.socket(family, c.SOCK_STREAM | c.SOCK_NONBLOCK | c.SOCK_CLOEXEC, 0);
    const channel = new TcpChannel(poller, fd, 'connecting', endpoint);
    if (fd < 0) channel.#fail('socket', libc.errno());
    else if (options.localIp === undefined || channel.#bind(options.localIp)) {
      channel.#connect(endpoint, options);
    }
    return channel;
  }

  /**
   * As {@link connect}, with a bound, non-blocking socket that somebody else makes, now or later; the wait for it is part
   * of the bound on time. A socket that comes when the channel is over is not taken: it stays the maker's.
   */
  static connectWith(
    poller: Poller,
    endpoint: Endpoint,
    options: Omit<ConnectOptions, 'localIp'>,
    obtain: (waiter: SocketWaiter) => void,
  ): TcpChannel {
    const channel = new TcpChannel(poller, -1, 'connecting', endpoint);
    channel.#expireAfter(options.timeoutMs);
    obtain({
      take: (fd) => {
        if (channel.#state !== 'connecting') return false;
        channel.#fd = fd;
        channel.#connect(endpoint, options);
        return true;
      },
      fail: (reason, detail) => {
        if (channel.#state === 'connecting') channel.#finish(reason, detail);
      },
    });
    return channel;
  }

  /**
   * Takes over the descriptor of a connected, non-blocking stream socket. Options are the caller's business: those
   * of an accepted socket are inherited from its listener.
   */
  static adopt(poller: Poller, fd: number, remote?: Endpoint): TcpChannel {
    const channel = new TcpChannel(poller, fd, 'open', remote);
    channel.#watch();
    return channel;
  }

  /** The descriptor; -1 once it is free. For questions to the kernel (original destination), never to be kept. */
  get fd(): number {
    return this.#fd;
  }

  /** Own address; asked of the kernel once. Undefined when the socket is gone or not of an IP family. */
  get localEndpoint(): Endpoint | undefined {
    if (this.#local === undefined && this.#fd >= 0) this.#local = localEndpointOf(this.#fd);
    return this.#local;
  }

  get remoteEndpoint(): Endpoint | undefined {
    if (this.#remote === undefined && this.#fd >= 0) this.#remote = remoteEndpointOf(this.#fd);
    return this.#remote;
  }

  get pendingBytes(): number {
    return this.#pending === undefined ? 0 : this.#pending.length;
  }

  write(bytes: Uint8Array, more = false): boolean {
    if (this.#ending || bytes.length === 0) return !this.#blocked || this.#ending;
    if (this.#state !== 'open') {
      if (this.#state !== 'connecting') return true;
    } else if (this.#broken !== 0) {
      return true;
    } else if (this.pendingBytes === 0) {
      if (this.#delayed && (this.bytesWritten > 0 || bytes.length > ONE_SEGMENT_BYTES)) this.#hurry();
      const sent = libc.send(this.#fd, bytes, bytes.length, more ? SEND_MORE_FLAGS : SEND_FLAGS);
      if (sent === bytes.length) {
        this.bytesWritten += sent;
        return true;
      }
      if (sent >= 0) {
        this.bytesWritten += sent;
        this.#hold(bytes.subarray(sent));
        return false;
      }
      const errno = libc.errno();
      if (errno !== c.EAGAIN && errno !== c.EINTR) {
        this.#breakLater(errno);
        return true;
      }
    }
    this.#hold(bytes);
    return false;
  }

  end(): void {
    if (this.#ending || this.#isOver) return;
    this.#ending = true;
    if (this.#state === 'open' && this.pendingBytes === 0) this.#endWriting();
  }

  reset(_code?: ErrorCode): void {
    if (this.#isOver) return;
    this.#finish('local', undefined);
  }

  pause(): void {
    this.#paused = true;
    this.#readSize = FIRST_READ_BYTES;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (!this.#readable || this.#reading || this.#state !== 'open') return;
    this.#resumeTask ??= () => {
      if (this.#state === 'open' && !this.#paused && this.#readable) this.#readInTask();
    };
    this.#poller.afterBatch(this.#resumeTask);
  }

  /**
   * Gives the descriptor away, for example to a `net.Socket`: only while open, with nothing pending and neither half
   * ended; undefined otherwise. Nothing is reported any more, `close` included.
   */
  detach(): number | undefined {
    if (
      this.#state !== 'open' ||
      this.pendingBytes > 0 ||
      this.#ending ||
      this.#readEnded ||
      this.#broken !== 0
    ) {
      return undefined;
    }
    const fd = this.#fd;
    this.#poller.unregister(fd);
    if (this.#delayed) this.#hurry();
    if (this.#poller.deadlines.has(this)) setKeepalive(fd, this.#keepalive);
    this.#poller.deadlines.delete(this);
    this.#state = 'detached';
    this.#fd = -1;
    return fd;
  }

  /** @internal for the poller */
  ready(events: number): void {
    if (this.#state === 'connecting') {
      if ((events & EVENTS_BROKEN) !== 0) {
        const errno = takeSocketError(this.#fd);
        if (errno !== 0) {
          this.#fail('connect', errno);
          return;
        }
      }
      if ((events & c.EPOLLOUT) === 0) return;
      this.#opened();
    }
    if (this.#state !== 'open') return;
    if ((events & c.EPOLLOUT) !== 0 && this.pendingBytes > 0) this.#flush();
    if ((events & ~c.EPOLLOUT) === 0 || this.#state !== 'open') return;
    this.#readable = true;
    if ((events & ~(c.EPOLLOUT | c.EPOLLIN)) !== 0) this.#readToTheEnd = true;
    if ((events & (c.EPOLLRDHUP | c.EPOLLERR)) === c.EPOLLRDHUP) this.#finArrived = true;
    if (!this.#paused) this.#read();
    // A reset that came after the end of data is not seen by recv; a paused socket is told of one at once.
    if ((events & c.EPOLLERR) !== 0 && this.#state === 'open' && (this.#paused || this.#readEnded)) {
      const errno = takeSocketError(this.#fd);
      if (errno !== 0) this.#fail('recv', errno);
    }
  }

  /** @internal for the poller */
  failed(error: unknown): void {
    if (!this.#isOver) this.#finish('system', `the owner threw: ${String(error)}`);
  }

  /** @internal for the deadlines of the poller */
  expired(): void {
    if (this.#state === 'connecting' && this.#fd < 0) this.#finish('overload', 'no socket in time');
    else if (this.#state === 'connecting') this.#finish('timeout', 'connect: no answer in time');
    else if (this.#state === 'open') setKeepalive(this.#fd, this.#keepalive);
  }

  /** `closing`, `closed` or `detached`: nothing may be done any more. */
  get #isOver(): boolean {
    return this.#state !== 'open' && this.#state !== 'connecting';
  }

  /** Binds to an address of this host; false when it is none, and then the channel is over. */
  #bind(localIp: Ip): boolean {
    const fd = this.#fd;
    setIntegerOption(fd, c.SOL_IP, c.IP_BIND_ADDRESS_NO_PORT, 1);
    const local = encodeSocketAddress({ ip: localIp, port: 0 });
    if (libc.bind(fd, local.bytes, local.size) >= 0) return true;
    const errno = libc.errno();
    // Not an address of this host: no shortage that passes, unlike the same errno from connect.
    const reason = errno === c.EADDRNOTAVAIL ? 'system' : errorCodeOf(errno);
    this.#finish(reason, describeErrno('bind', errno));
    return false;
  }

  /** Begins the handshake on the descriptor. */
  #connect(endpoint: Endpoint, options: ConnectOptions): void {
    setUrgentInline(this.#fd);
    this.#delayed = true;
    this.#keepalive = options.keepalive ?? DEFAULT_KEEPALIVE;
    const address = encodeSocketAddress(endpoint);
    if (libc.connect(this.#fd, address.bytes, address.size) < 0) {
      const errno = libc.errno();
      if (errno !== c.EINPROGRESS) {
        this.#fail('connect', errno);
        return;
      }
    }
    this.#watch();
    if (this.#state === 'connecting' && !this.#poller.deadlines.has(this)) {
      this.#expireAfter(options.timeoutMs);
    }
  }

  #expireAfter(milliseconds: number): void {
    this.deadline = performance.now() + milliseconds;
    this.#poller.deadlines.add(this);
  }

  #watch(): void {
    try {
      this.#poller.register(this.#fd, INTEREST_STREAM, this);
    } catch (error) {
      this.#finish('overload', String(error));
    }
  }

  #opened(): void {
    this.#state = 'open';
    const idleMs = this.#keepalive!.idleMs;
    this.deadline = performance.now() + Math.min(KEEPALIVE_AFTER_MS, idleMs * KEEPALIVE_AFTER_SHARE);
    this.handler.open?.();
    if (this.#state !== 'open') return;
    if (this.pendingBytes > 0) this.#flush();
    else if (this.#ending && !this.#writeEnded) this.#endWriting();
  }

  #hold(bytes: Uint8Array): void {
    this.#pending ??= new PendingBytes();
    this.#pending.append(bytes);
    this.#poller.heldBytes += bytes.length;
    this.#blocked = true;
  }

  /** From now on nothing waits for an acknowledgement. The first small write never does, and is often the last. */
  #hurry(): void {
    this.#delayed = false;
    setNoDelay(this.#fd);
  }

  #flush(): void {
    const pending = this.#pending!;
    if (this.#delayed) this.#hurry();
    while (pending.length > 0) {
      const head = pending.head();
      const sent = libc.send(this.#fd, head, head.length, SEND_FLAGS);
      if (sent < 0) {
        const errno = libc.errno();
        if (errno === c.EINTR) continue;
        if (errno !== c.EAGAIN) this.#breakLater(errno);
        return;
      }
      this.bytesWritten += sent;
      this.#poller.heldBytes -= sent;
      pending.consume(sent);
      if (sent < head.length) return;
    }
    this.#blocked = false;
    if (this.#ending) this.#endWriting();
    else this.handler.drain();
  }

  /** Everything went out: half-close, or close when the other half is over as well (that sends the FIN, too). */
  #endWriting(): void {
    this.#writeEnded = true;
    if (this.#readEnded) this.#finish('done', undefined);
    else libc.shutdown(this.#fd, c.SHUT_WR); // fails only when the connection is gone, and then an event says so
  }

  #read(): void {
    const { readBuffer } = this.#poller;
    this.#reading = true;
    try {
      for (let reads = 0; this.#state === 'open' && !this.#paused && this.#readable; reads++) {
        if (reads === READS_PER_TURN) {
          this.#poller.modify(this.#fd, INTEREST_STREAM); // reported again, after the others
          break;
        }
        const size = this.#poller.heldBytes > HELD_BYTES_SOFT_LIMIT ? FRUGAL_READ_BYTES : this.#readSize;
        const count = libc.recv(this.#fd, readBuffer, size, 0);
        if (count > 0) {
          // The socket was emptied. What comes later is a new event.
          if (count < size) this.#readable = this.#readToTheEnd;
          else if (this.#readSize < readBuffer.length) this.#readSize *= 2;
          this.bytesRead += count;
          this.handler.data(this.#poller.readBytes(count), this.#finArrived && this.#broken === 0);
        } else if (count === 0) {
          this.#readable = false;
          if (this.#broken === 0) this.#ended();
        } else {
          const errno = libc.errno();
          if (errno === c.EINTR) continue;
          this.#readable = false;
          if (errno !== c.EAGAIN) this.#fail('recv', errno);
        }
      }
    } finally {
      this.#reading = false;
    }
  }

  #ended(): void {
    if (this.#readEnded) return;
    this.#readEnded = true;
    this.handler.end();
    if (this.#writeEnded && this.#state === 'open') this.#finish('done', undefined);
  }

  /** A send failed. What the other side had sent before is still read, where the owner takes it. */
  #breakLater(errno: number): void {
    if (this.#broken !== 0) return;
    this.#broken = errno;
    this.#poller.afterBatch(() => {
      if (this.#state !== 'open') return;
      this.#readable = true;
      this.#readToTheEnd = true;
      if (!this.#paused) this.#readInTask();
      if (this.#state === 'open') this.#fail('send', errno);
    });
  }

  /** Reads outside of `ready`: what the owner throws costs the connection here as well. */
  #readInTask(): void {
    try {
      this.#read();
    } catch (error) {
      this.failed(error);
      throw error;
    }
  }

  #fail(call: string, errno: number): void {
    this.#finish(errorCodeOf(errno), describeErrno(call, errno));
  }

  /** Frees the descriptor at once, and tells the owner at the end of the batch: never from within its own call. */
  #finish(reason: ChannelClose['reason'], detail: string | undefined): void {
    this.#poller.deadlines.delete(this);
    this.#state = 'closing';
    const fd = this.#fd;
    this.#fd = -1;
    if (fd >= 0) {
      this.#poller.forget(fd);
      if (reason === 'done') libc.close(fd);
      else closeWithReset(fd);
    }
    if (this.#pending !== undefined) {
      this.#poller.heldBytes -= this.#pending.length;
      this.#pending.clear();
    }
    const delivered = this.bytesWritten > 0;
    this.#poller.afterBatch(() => {
      this.#state = 'closed';
      this.handler.close(detail === undefined ? { reason, delivered } : { reason, delivered, detail });
    });
  }
}
