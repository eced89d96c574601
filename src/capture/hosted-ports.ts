import type { EndpointKey } from '../model/address.ts';

/** How a port at every address is written where sets hold destinations. */
const EVERYWHERE = '*:';

/** A port at every address, as a member of the sets of the role `ports`. */
export const anywhereKey = (port: number): EndpointKey => `${EVERYWHERE}${port}` as EndpointKey;

/** The port alone, where a key means every address. */
export const portAnywhere = (key: EndpointKey): string | undefined =>
  key.startsWith(EVERYWHERE) ? key.slice(EVERYWHERE.length) : undefined;

/** The port of a key. Keys are canonical, so cutting is enough. */
export const portOf = (key: EndpointKey): number => Number(key.slice(key.lastIndexOf(':') + 1));

/**
 * Ports at which this host has instances of strict services. A server that listens on every address is reached at those
 * that no registry knows as well, so what is closed is the port.
 */
export class HostedPorts {
  /** How many services need each. */
  readonly #uses = new Map<number, number>();

  has(port: number): boolean {
    return this.#uses.has(port);
  }

  /** One service has changed: the ports that it needed, and those that it needs. */
  replace(before: ReadonlySet<number>, after: ReadonlySet<number>): void {
    for (const port of after) if (!before.has(port)) this.#uses.set(port, (this.#uses.get(port) ?? 0) + 1);
    for (const port of before) {
      if (after.has(port)) continue;
      const left = this.#uses.get(port)! - 1;
      if (left > 0) this.#uses.set(port, left);
      else this.#uses.delete(port);
    }
  }
}
