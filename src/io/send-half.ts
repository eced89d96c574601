import * as c from './constants.ts';
import * as libc from './libc.ts';
import type { OutboxUser } from './outbox.ts';
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
export class SendHalf implements OutboxUser {
  /** Bytes taken by the kernel. */
  sent = 0;
  readonly #sender: Sender;
  readonly #poller: Poller;
  #held: PendingBytes | undefined;
  /** Something waits for the end of the batch; nothing is held then. */
  #boxed = false;
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

  /** Bytes that the kernel would not take yet. */
  get pending(): number {
    return this.#held === undefined ? 0 : this.#held.length;
  }

  /** The owner was told to stop, and is told when it may go on. */
  get blocked(): boolean {
    return this.#blocked;
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
    if (this.#mayWait(bytes.length, more)) {
      this.#boxed = true;
      this.#poller.outbox.put(this, bytes);
      return true;
    }
    if (this.#broken) return true;
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

  /** Sends now what waits for the end of the batch, if anything. */
  settle(): void {
    if (this.#boxed) this.#poller.outbox.flush();
  }

  /** @internal for the outbox */
  sendOut(address: number, size: number, bytes: Uint8Array, from: number): void {
    this.#boxed = false;
    const sent = libc.sendAt(this.#sender.fd, address, size, SEND_FLAGS);
    if (sent === size) {
      this.sent += sent;
      return;
    }
    if (sent < 0) {
      const errno = libc.errno();
      if (errno !== c.EAGAIN && errno !== c.EINTR) {
        this.#fail(errno);
        return;
      }
    }
    const taken = Math.max(sent, 0);
    this.sent += taken;
    this.#keep(bytes.subarray(from + taken, from + size));
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

  /** Whether a write waits for the end of the batch. If not, nothing of ours does from now on. */
  #mayWait(size: number, more: boolean): boolean {
    const waits = !more && !this.#delayed && this.pending === 0 && this.#poller.outbox.takes(size);
    if (!waits) this.settle();
    // Making room may have been the end of it.
    return waits && this.pending === 0 && !this.#broken;
  }

  #hold(bytes: Uint8Array): void {
    this.#keep(bytes);
    this.#blocked = true;
  }

  #keep(bytes: Uint8Array): void {
    this.#held ??= new PendingBytes();
    this.#held.append(bytes);
    this.#poller.heldBytes += bytes.length;
  }

  #fail(errno: number): void {
    if (this.#broken) return;
    this.#broken = true;
    this.#sender.sendFailed(errno);
  }
}
