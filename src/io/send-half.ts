import * as c from './constants.ts';
import * as libc from './libc.ts';
import { PendingBytes } from './pending.ts';
import type { Poller } from './poller.ts';
import { setNoDelay } from './socket-options.ts';

/** A first write under this size is one segment whatever the path's MTU, so Nagle's rule does not hold it back. */
const ONE_SEGMENT_BYTES = 512;
const SEND_FLAGS = c.MSG_NOSIGNAL | c.MSG_DONTWAIT;
/** The last segment waits for what follows: an answer and the end of its connection make one packet. */
const SEND_MORE_FLAGS = SEND_FLAGS | c.MSG_MORE;

/** The socket that a sending half belongs to. */
interface Sender {
  readonly fd: number;
  /** `send` failed with this errno, for the first time. */
  sendFailed(errno: number): void;
}

/** What a socket has to send: given to the kernel at once as far as it goes, and the rest kept. */
export class SendHalf {
  /** Bytes taken by the kernel. */
  sent = 0;
  readonly #sender: Sender;
  readonly #poller: Poller;
  #held: PendingBytes | undefined;
  /** The owner was told to stop. */
  #blocked = false;
  #ending = false;
  #ended = false;
  #broken = false;
  /** Nagle's rule holds: TCP_NODELAY is still to be set. */
  #delayed = false;

  constructor(sender: Sender, poller: Poller) {
    this.#sender = sender;
    this.#poller = poller;
  }

  /** Bytes that wait. */
  get pending(): number {
    return this.#held === undefined ? 0 : this.#held.length;
  }

  /** The owner will write no more. */
  get ending(): boolean {
    return this.#ending;
  }

  /** Everything went out, the end as well. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Nothing waits, and nothing was ended or has failed. */
  get idle(): boolean {
    return this.pending === 0 && !this.#ending && !this.#broken;
  }

  /** The socket is new and not an accepted one, which inherits its options. */
  begin(): void {
    this.#delayed = true;
  }

  /** From now on nothing waits for an acknowledgement. The first small write never does, and is often the last. */
  hurry(): void {
    if (!this.#delayed) return;
    this.#delayed = false;
    setNoDelay(this.#sender.fd);
  }

  /** As `Channel.write`, while the socket is open. */
  write(bytes: Uint8Array, more: boolean): boolean {
    if (this.#ending || this.#broken) return true;
    if (bytes.length === 0) return !this.#blocked;
    if (this.pending === 0) {
      if (this.#delayed && (this.sent > 0 || bytes.length > ONE_SEGMENT_BYTES)) this.hurry();
      const sent = libc.send(this.#sender.fd, bytes, bytes.length, more ? SEND_MORE_FLAGS : SEND_FLAGS);
      if (sent === bytes.length) {
        this.sent += sent;
        return true;
      }
      if (sent >= 0) {
        this.sent += sent;
        this.#hold(bytes.subarray(sent));
        return false;
      }
      const errno = libc.errno();
      if (errno !== c.EAGAIN && errno !== c.EINTR) {
        this.#fail(errno);
        return true;
      }
    }
    this.#hold(bytes);
    return false;
  }

  /** As `Channel.write`, before the socket is open. */
  keep(bytes: Uint8Array): boolean {
    if (this.#ending) return true;
    if (bytes.length > 0) this.#hold(bytes);
    return !this.#blocked;
  }

  /** Sends what waits; true when all of it went. */
  flush(): boolean {
    const held = this.#held!;
    this.hurry();
    while (held.length > 0) {
      const head = held.head();
      const sent = libc.send(this.#sender.fd, head, head.length, SEND_FLAGS);
      if (sent < 0) {
        const errno = libc.errno();
        if (errno === c.EINTR) continue;
        if (errno !== c.EAGAIN) this.#fail(errno);
        return false;
      }
      this.sent += sent;
      this.#poller.heldBytes -= sent;
      held.consume(sent);
      if (sent < head.length) return false;
    }
    this.#blocked = false;
    return true;
  }

  /** Nothing more will be written. */
  end(): void {
    this.#ending = true;
  }

  /** Half-close: sends the FIN. */
  shutdown(): void {
    this.#ended = true;
    libc.shutdown(this.#sender.fd, c.SHUT_WR); // fails only when the connection is gone, and then an event says so
  }

  /** Lets go of what waits. */
  clear(): void {
    if (this.#held === undefined) return;
    this.#poller.heldBytes -= this.#held.length;
    this.#held.clear();
  }

  #hold(bytes: Uint8Array): void {
    this.#held ??= new PendingBytes();
    this.#held.append(bytes);
    this.#poller.heldBytes += bytes.length;
    this.#blocked = true;
  }

  #fail(errno: number): void {
    if (this.#broken) return;
    this.#broken = true;
    this.#sender.sendFailed(errno);
  }
}
