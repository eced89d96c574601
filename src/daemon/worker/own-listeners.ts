import { networkInterfaces } from 'node:os';
import { type Ip, parseIp } from '../../model/address.ts';

/** Addresses come and go (containers, VPNs); they are read again this often, and never for every connection. */
const REFRESH_MS = 5_000;

/** What this agent listens on, so that a connection to itself is recognised. */
export class OwnListenerSet {
  readonly ports: ReadonlySet<number>;
  readonly #now: () => number;
  #addresses: ReadonlySet<string> = new Set();
  #readAt = Number.NEGATIVE_INFINITY;

  constructor(ports: Iterable<number>, now: () => number = () => performance.now()) {
    this.ports = new Set(ports);
    this.#now = now;
  }

  isOwnAddress(ip: Ip): boolean {
    if (ip.startsWith('127.') || ip === '::1') return true;
    const now = this.#now();
    if (now - this.#readAt > REFRESH_MS) {
      this.#readAt = now;
      this.#addresses = new Set(
        Object.values(networkInterfaces()).flatMap((list = []) =>
          list.flatMap(({ address }) => parseIp(address.split('%')[0]!) ?? []),
        ),
      );
    }
    return this.#addresses.has(ip);
  }
}
