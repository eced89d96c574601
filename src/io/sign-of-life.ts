import { constants, openSync } from 'node:fs';
import type { Ip } from '../model/address.ts';
import * as c from './constants.ts';
import * as libc from './libc.ts';
import { encodeSocketAddress } from './sockaddr.ts';

/** A file whose time says when a process last showed that it lives; a lock on it ends with the process. */
export class LifeFile {
  readonly #fd: number;

  /** Makes the file where it is missing. Throws what the file system says. */
  constructor(path: string) {
    this.#fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    libc.flock(this.#fd, c.LOCK_SH | c.LOCK_NB);
  }

  /** Says that this process lives. Allocates nothing. */
  touch(): void {
    libc.futimens(this.#fd, null);
  }

  close(): void {
    libc.close(this.#fd);
  }
}

const NOTHING = new Uint8Array(new ArrayBuffer(16));

/** Sends an empty datagram to an address again and again; nobody has to take it. */
export class DatagramBeacon {
  readonly #fd: number;
  readonly #address: Uint8Array;
  readonly #size: number;

  private constructor(fd: number, address: Uint8Array, size: number) {
    this.#fd = fd;
    this.#address = address;
    this.#size = size;
  }

  /** Undefined where the host has no such family, or no descriptor is left. */
  static open(ip: Ip, port: number): DatagramBeacon | undefined {
    const encoded = encodeSocketAddress({ ip, port });
    const address = new Uint8Array(new ArrayBuffer(encoded.bytes.length));
    address.set(encoded.bytes);
    const fd = libc.socket(encoded.family, c.SOCK_DGRAM | c.SOCK_NONBLOCK | c.SOCK_CLOEXEC, 0);
    return fd < 0 ? undefined : new DatagramBeacon(fd, address, encoded.size);
  }

  /** Sends one. What the kernel says to it is of no interest: a rule that notes the datagram and drops it makes EPERM. */
  send(): void {
    libc.sendto(this.#fd, NOTHING, 0, 0, this.#address, this.#size);
  }

  close(): void {
    libc.close(this.#fd);
  }
}
