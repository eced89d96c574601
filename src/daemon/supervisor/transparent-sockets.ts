import { rmSync } from 'node:fs';
import { receiveDescriptors, sendDescriptors } from '../../io/descriptor-passing.ts';
import { closeDescriptor } from '../../io/descriptors.ts';
import { describeErrno } from '../../io/failure.ts';
import { INTEREST_ACCEPT, type Poller, type PollTarget } from '../../io/poller.ts';
import { createTransparentSocket, type SocketFamily, socketFamilies } from '../../io/transparent.ts';
import { UnixListener } from '../../io/unix-socket.ts';
import type { Log } from '../../telemetry/log.ts';

/*
 * Sockets that may be bound to another host's address (IP_TRANSPARENT) need a capability to be made, which workers do not
 * have. The supervisor makes them ahead and passes them over a unix socket in its runtime directory; a worker connects
 * to it when it needs the first one, and again to the next supervisor when this one is gone.
 *
 * A question is one byte, 4 or 6: the family. The answer is that byte with up to SOCKETS_PER_ANSWER descriptors, or the
 * byte with REFUSED set and none.
 */

/** Sockets that one question brings; a worker holds at most twice as many of a family. */
export const SOCKETS_PER_ANSWER = 16;
export const REFUSED = 0x80;
/** Workers, and the draining ones of earlier versions. */
const MAX_CLIENTS = 64;

/** Where the supervisor answers. */
export function transparentSocketPath(runtimeDirectory: string): string {
  return `${runtimeDirectory}/sockets.sock`;
}

/** The supervisor's side. */
export class TransparentSockets {
  readonly #poller: Poller;
  readonly #log: Log;
  readonly #path: string;
  readonly #listener: UnixListener;
  readonly #clients = new Set<Client>();
  #refused = false;

  /** Throws a MeshError when the path cannot be listened on. */
  constructor(poller: Poller, path: string, log: Log) {
    this.#poller = poller;
    this.#log = log;
    this.#path = path;
    this.#listener = new UnixListener(poller, path, (fd) => this.#connected(fd));
  }

  /** Nobody is answered any more, and there is no path to ask at. */
  close(): void {
    this.#listener.close();
    rmSync(this.#path, { force: true });
    for (const client of this.#clients) client.close();
  }

  #connected(fd: number): void {
    if (this.#clients.size === MAX_CLIENTS) {
      closeDescriptor(fd);
      return;
    }
    const client = new Client(this.#poller, fd, {
      make: (family) => this.#make(family),
      closed: () => this.#clients.delete(client),
    });
    this.#clients.add(client);
  }

  #make(family: SocketFamily): number[] {
    const made: number[] = [];
    while (made.length < SOCKETS_PER_ANSWER) {
      const fd = createTransparentSocket(family);
      if (fd < 0) {
        if (made.length === 0) this.#refuse(describeErrno('setsockopt', -fd));
        break;
      }
      made.push(fd);
    }
    return made;
  }

  /** Said once: it will not get better by itself. */
  #refuse(why: string): void {
    if (this.#refused) return;
    this.#refused = true;
    this.#log.error({ why }, 'services with source: transparent cannot be delivered to');
  }
}

interface ClientOwner {
  make(family: SocketFamily): number[];
  closed(): void;
}

/** One worker. */
class Client implements PollTarget {
  readonly #poller: Poller;
  readonly #fd: number;
  readonly #owner: ClientOwner;
  #closed = false;

  constructor(poller: Poller, fd: number, owner: ClientOwner) {
    this.#poller = poller;
    this.#fd = fd;
    this.#owner = owner;
    poller.register(fd, INTEREST_ACCEPT, this);
  }

  /** @internal for the poller */
  ready(): void {
    const message = receiveDescriptors(this.#fd);
    if (message === 'empty') return;
    if (typeof message === 'string') {
      this.close();
      return;
    }
    // A worker sends no descriptors, and has one question open for each family.
    for (const fd of message.descriptors) closeDescriptor(fd);
    if (message.descriptors.length > 0 || message.bytes.length > socketFamilies.length) {
      this.close();
      return;
    }
    for (const byte of message.bytes) {
      const family = socketFamilies.find((known) => known === byte);
      if (family === undefined || !this.#answer(family)) {
        this.close();
        return;
      }
    }
  }

  /** @internal for the poller */
  failed(): void {
    this.close();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poller.unregister(this.#fd);
    closeDescriptor(this.#fd);
    this.#owner.closed();
  }

  /** False when the worker does not read its answers. */
  #answer(family: SocketFamily): boolean {
    const sockets = this.#owner.make(family);
    const word = sockets.length === 0 ? family | REFUSED : family;
    const errno = sendDescriptors(this.#fd, Uint8Array.of(word), sockets);
    for (const fd of sockets) closeDescriptor(fd);
    return errno === 0;
  }
}
