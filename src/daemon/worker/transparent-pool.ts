import type { SocketWaiter } from '../../io/connecting.ts';
import type { PassedMessage } from '../../io/descriptor-passing.ts';
import { receiveDescriptors, sendDescriptors } from '../../io/descriptor-passing.ts';
import { closeDescriptor } from '../../io/descriptors.ts';
import { describeErrno } from '../../io/failure.ts';
import { INTEREST_ACCEPT, type Poller, type PollTarget } from '../../io/poller.ts';
import { bindTransparent, type SocketFamily, socketFamilies, socketFamilyOf } from '../../io/transparent.ts';
import { connectUnix } from '../../io/unix-socket.ts';
import type { Endpoint } from '../../model/address.ts';
import { REFUSED, SOCKETS_PER_ANSWER } from '../supervisor/transparent-sockets.ts';

/** With fewer than this left, more are asked for. */
const LOW_WATER = SOCKETS_PER_ANSWER / 2;
/** Connections of one family that wait for a socket; each waits for `balance.connectTimeout` at most. */
const MAX_WAITING = 256;
/** Pause before a supervisor that is not there is tried again, while somebody waits. */
const RETRY_MS = 100;

interface Waiting {
  readonly source: Endpoint;
  readonly waiter: SocketWaiter;
}

interface Shelf {
  readonly family: SocketFamily;
  readonly sockets: number[];
  readonly waiting: Waiting[];
  /** A question is open. */
  asked: boolean;
}

/**
 * A worker's stock of sockets that may be bound to another host's address; the supervisor makes them
 * (transparent-sockets.ts). Nothing is held before the first one is wanted.
 */
export class TransparentPool implements PollTarget {
  readonly #poller: Poller;
  readonly #path: string;
  readonly #shelves: readonly Shelf[] = socketFamilies.map((family) => ({
    family,
    sockets: [],
    waiting: [],
    asked: false,
  }));
  #fd = -1;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(poller: Poller, path: string) {
    this.#poller = poller;
    this.#path = path;
  }

  /** Gives the waiter a socket bound to this address, at once or as soon as there is one. */
  obtain(source: Endpoint, waiter: SocketWaiter): void {
    const shelf = this.#shelves.find(({ family }) => family === socketFamilyOf(source))!;
    const socket = shelf.sockets.pop();
    if (socket !== undefined) give(socket, { source, waiter });
    else if (this.#closed || shelf.waiting.length === MAX_WAITING) {
      waiter.fail('overload', `more than ${MAX_WAITING} connections wait for a transparent socket`);
      return;
    } else shelf.waiting.push({ source, waiter });
    if (shelf.sockets.length < LOW_WATER) this.#ask(shelf);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#disconnect();
    for (const { sockets, waiting } of this.#shelves) {
      for (const fd of sockets.splice(0)) closeDescriptor(fd);
      for (const { waiter } of waiting.splice(0)) waiter.fail('draining', 'the agent stops');
    }
  }

  /** @internal for the poller */
  ready(): void {
    // Two questions at most are open, so two answers may be there.
    for (const _ of this.#shelves) {
      const message = receiveDescriptors(this.#fd);
      if (message === 'empty') return;
      if (typeof message === 'string' || !this.#receive(message)) {
        this.#disconnect();
        this.#retryLater();
        return;
      }
    }
  }

  /** @internal for the poller */
  failed(): void {
    this.#disconnect();
    this.#retryLater();
  }

  #ask(shelf: Shelf): void {
    if (shelf.asked || this.#closed || !this.#connect()) return;
    shelf.asked = sendDescriptors(this.#fd, Uint8Array.of(shelf.family), []) === 0;
    if (shelf.asked) return;
    this.#disconnect();
    this.#retryLater();
  }

  #connect(): boolean {
    if (this.#fd >= 0) return true;
    const fd = connectUnix(this.#path, process.geteuid!());
    if (fd === undefined) {
      this.#retryLater();
      return false;
    }
    this.#fd = fd;
    this.#poller.register(fd, INTEREST_ACCEPT, this);
    return true;
  }

  #disconnect(): void {
    for (const shelf of this.#shelves) shelf.asked = false;
    if (this.#fd < 0) return;
    this.#poller.unregister(this.#fd);
    closeDescriptor(this.#fd);
    this.#fd = -1;
  }

  #retryLater(): void {
    if (this.#closed || !this.#shelves.some(({ waiting }) => waiting.length > 0)) return;
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      for (const shelf of this.#shelves) if (shelf.waiting.length > 0) this.#ask(shelf);
    }, RETRY_MS);
  }

  /** False when it is no answer to a question of ours. */
  #receive({ bytes, descriptors }: PassedMessage): boolean {
    // Answers without descriptors may come together with the one that follows; descriptors belong to the last byte.
    for (const [at, byte] of bytes.entries()) {
      const shelf = this.#shelves.find(({ family }) => family === (byte & ~REFUSED));
      if (shelf === undefined) break;
      shelf.asked = false;
      if ((byte & REFUSED) !== 0) {
        for (const { waiter } of shelf.waiting.splice(0)) {
          waiter.fail('system', 'the supervisor may not make transparent sockets');
        }
      } else if (at === bytes.length - 1) {
        this.#stock(shelf, descriptors);
        return true;
      }
    }
    for (const fd of descriptors) closeDescriptor(fd);
    return descriptors.length === 0;
  }

  #stock(shelf: Shelf, descriptors: readonly number[]): void {
    const sockets = [...descriptors];
    while (sockets.length > 0 && shelf.waiting.length > 0) {
      give(sockets.pop()!, shelf.waiting.shift()!);
    }
    shelf.sockets.push(...sockets);
    if (shelf.waiting.length > 0) this.#ask(shelf);
  }
}

function give(fd: number, { source, waiter }: Waiting): void {
  const errno = bindTransparent(fd, source);
  if (errno === 0 && waiter.take(fd)) return;
  // Bound, so of no use to anybody else.
  closeDescriptor(fd);
  if (errno !== 0) waiter.fail('system', describeErrno('bind', errno));
}
