import type { Endpoint, Ip } from '../model/address.ts';
import type { ErrorCode } from '../model/errors.ts';
import { type Channel, type ChannelClose, type ChannelHandler, noHandler } from './channel.ts';
import {
  beginHandshake,
  bindToAddress,
  type ConnectOptions,
  createStreamSocket,
  type SocketWaiter,
} from './connecting.ts';
import * as c from './constants.ts';
import type { Deadline } from './deadlines.ts';
import { describeErrno, errorCodeOf } from './failure.ts';
import * as libc from './libc.ts';
import { EVENTS_BROKEN, INTEREST_STREAM, type Poller, type PollTarget } from './poller.ts';
import { ReceiveHalf } from './receive-half.ts';
import { SendHalf } from './send-half.ts';
import {
  closeWithReset,
  DEFAULT_KEEPALIVE,
  type Keepalive,
  localEndpointOf,
  remoteEndpointOf,
  setKeepalive,
  takeSocketError,
} from './socket-options.ts';

/**
 * Keepalive is set on connections that lived this long, or a quarter of its idle time if that is less: most end before,
 * and three calls are spared.
 */
const KEEPALIVE_AFTER_MS = 10_000;
const KEEPALIVE_AFTER_SHARE = 0.25;
/**
 * `connecting` → `open` → `closing` → `closed`, and `open` → `detached`. From `closing` on the descriptor is free and
 * only the call of `handler.close` is due.
 */
type State = 'connecting' | 'open' | 'closing' | 'closed' | 'detached';

/** A non-blocking TCP socket (or any stream socket) on a {@link Poller}. */
export class TcpChannel implements Channel, PollTarget, Deadline {
  handler: ChannelHandler = noHandler;
  /** While connecting, the end of the time for it; then, when to set keepalive. On the clock of `performance.now()`. */
  deadline = 0;
  place = -1;

  readonly #poller: Poller;
  #fd: number;
  #state: State;
  readonly #send: SendHalf;
  readonly #receive: ReceiveHalf;
  /** Still to be set on the descriptor; undefined on accepted sockets, which inherited it. */
  #keepalive: Keepalive | undefined;
  #local: Endpoint | undefined;
  #remote: Endpoint | undefined;

  private constructor(poller: Poller, fd: number, state: State, remote: Endpoint | undefined) {
    this.#poller = poller;
    this.#fd = fd;
    this.#state = state;
    this.#remote = remote;
    this.#send = new SendHalf(this, poller);
    this.#receive = new ReceiveHalf(this, poller);
  }

  /**
   * Connects to an endpoint. Never throws: whatever goes wrong, too few descriptors included, is told by
   * `close`, after this returned.
   */
  static connect(poller: Poller, endpoint: Endpoint, options: ConnectOptions): TcpChannel {
    const fd = createStreamSocket(endpoint.ip);
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

  /** Bytes handed to the owner. */
  get bytesRead(): number {
    return this.#receive.received;
  }

  /** Bytes taken by the kernel. */
  get bytesWritten(): number {
    return this.#send.sent;
  }

  get pendingBytes(): number {
    return this.#send.pending;
  }

  write(bytes: Uint8Array, more = false): boolean {
    if (this.#state === 'open') return this.#send.write(bytes, more);
    return this.#state !== 'connecting' || this.#send.keep(bytes);
  }

  end(): void {
    if (this.#send.ending || this.#isOver) return;
    this.#send.settle();
    this.#send.end();
    if (this.#state === 'open' && this.#send.pending === 0) this.#endWriting();
  }

  reset(_code?: ErrorCode): void {
    if (this.#isOver) return;
    this.#finish('local', undefined);
  }

  pause(): void {
    this.#receive.pause();
  }

  resume(): void {
    this.#receive.resume();
  }

  /**
   * Gives the descriptor away, for example to a `net.Socket`: only while open, with nothing pending and neither half
   * ended; undefined otherwise. Nothing is reported any more, `close` included.
   */
  detach(): number | undefined {
    this.#send.settle();
    if (this.#state !== 'open' || !this.#send.idle || this.#receive.ended) return undefined;
    const fd = this.#fd;
    this.#poller.unregister(fd);
    this.#send.hurry();
    this.#receive.close();
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
    if ((events & c.EPOLLOUT) !== 0 && this.#send.pending > 0) this.#flush();
    if ((events & ~c.EPOLLOUT) === 0 || this.#state !== 'open') return;
    this.#receive.ready(events);
    // A reset that came after the end of data is not seen by recv; a paused socket is told of one at once.
    if (
      (events & c.EPOLLERR) !== 0 &&
      this.#state === 'open' &&
      (this.#receive.paused || this.#receive.ended)
    ) {
      const errno = takeSocketError(this.#fd);
      if (errno !== 0) this.#fail('recv', errno);
    }
  }

  /** @internal for the sending half. What the other side had sent before is still read, where the owner takes it. */
  sendFailed(errno: number): void {
    this.#receive.disregardEnd();
    this.#poller.afterBatch(() => {
      if (this.#state !== 'open') return;
      this.#receive.readRest();
      if (this.#state === 'open') this.#fail('send', errno);
    });
  }

  /** @internal for the receiving half */
  receiveFailed(errno: number): void {
    this.#fail('recv', errno);
  }

  /** @internal for the receiving half */
  endDelivered(): void {
    if (this.#send.ended && this.#state === 'open') this.#finish('done', undefined);
  }

  /** @internal for the poller and the receiving half */
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
    const errno = bindToAddress(this.#fd, localIp);
    if (errno === 0) return true;
    // Not an address of this host: no shortage that passes, unlike the same errno from connect.
    const reason = errno === c.EADDRNOTAVAIL ? 'system' : errorCodeOf(errno);
    this.#finish(reason, describeErrno('bind', errno));
    return false;
  }

  #connect(endpoint: Endpoint, { keepalive, timeoutMs }: ConnectOptions): void {
    this.#send.begin();
    this.#keepalive = keepalive ?? DEFAULT_KEEPALIVE;
    const errno = beginHandshake(this.#fd, endpoint);
    if (errno !== 0) {
      this.#fail('connect', errno);
      return;
    }
    this.#watch();
    if (this.#state === 'connecting' && !this.#poller.deadlines.has(this)) this.#expireAfter(timeoutMs);
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
    if (this.#send.pending > 0) this.#flush();
    else if (this.#send.ending && !this.#send.ended) this.#endWriting();
  }

  #flush(): void {
    const { blocked } = this.#send;
    if (!this.#send.flush()) return;
    if (this.#send.ending) this.#endWriting();
    else if (blocked) this.handler.drain();
  }

  /** Everything went out: half-close, or close when the other half is over as well (that sends the FIN, too). */
  #endWriting(): void {
    if (this.#receive.ended) this.#finish('done', undefined);
    else this.#send.shutdown();
  }

  #fail(call: string, errno: number): void {
    this.#finish(errorCodeOf(errno), describeErrno(call, errno));
  }

  /** Frees the descriptor at once, and tells the owner at the end of the batch: never from within its own call. */
  #finish(reason: ChannelClose['reason'], detail: string | undefined): void {
    this.#send.settle();
    this.#poller.deadlines.delete(this);
    this.#state = 'closing';
    const fd = this.#fd;
    this.#fd = -1;
    if (fd >= 0) {
      this.#poller.forget(fd);
      if (reason === 'done') libc.close(fd);
      else closeWithReset(fd);
    }
    this.#receive.close();
    this.#send.clear();
    const delivered = this.#send.sent > 0;
    this.#poller.afterBatch(() => {
      this.#state = 'closed';
      this.handler.close(detail === undefined ? { reason, delivered } : { reason, delivered, detail });
    });
  }
}
