import { type EndpointKey, endpointKey } from '../../model/address.ts';
import type { Service } from '../../model/service.ts';
import { addressesOf, type Claim, emptySnapshot, type Snapshot } from '../../model/snapshot.ts';

/**
 * What the workers of this host hold for dead, and the addresses at which connect() may say so. One worker's experience
 * is enough; a worker that is replaced takes its word back.
 */
export class HostOutages {
  readonly #words = new Map<number, readonly Claim[]>();
  readonly #onChange: (addresses: ReadonlySet<EndpointKey>, down: readonly Claim[]) => void;
  #snapshot: Snapshot = emptySnapshot;
  #addresses: ReadonlySet<EndpointKey> = new Set();

  /** @param onChange told all addresses at which nobody would answer, and what is dead, when they change. */
  constructor(onChange: (addresses: ReadonlySet<EndpointKey>, down: readonly Claim[]) => void) {
    this.#onChange = onChange;
  }

  /** What is dead, each once; for people. */
  get down(): readonly Claim[] {
    const seen = new Map<string, Claim>();
    for (const claims of this.#words.values()) {
      for (const claim of claims) seen.set(`${claim.service} ${claim.instance ?? ''}`, claim);
    }
    return [...seen.values()];
  }

  /** A worker, known by its process id, says all that it holds for dead. */
  heard(pid: number, down: readonly Claim[]): void {
    if (down.length === 0) {
      this.gone(pid);
      return;
    }
    this.#words.set(pid, down);
    this.#update();
  }

  /** A worker that is gone, or takes no new connections, says nothing any more. */
  gone(pid: number): void {
    if (this.#words.delete(pid)) this.#update();
  }

  /** The snapshot that every worker routes by. */
  use(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    if (this.#words.size > 0) this.#update();
  }

  #update(): void {
    const addresses = this.#derive();
    const before = this.#addresses;
    if (addresses.size === before.size && [...addresses].every((key) => before.has(key))) return;
    this.#addresses = addresses;
    this.#onChange(addresses, this.down);
  }

  #derive(): ReadonlySet<EndpointKey> {
    const services = new Set<Service>();
    /** Addresses of instances that cannot be reached, under whatever name they are called. */
    const dead = new Set<EndpointKey>();
    const candidates = new Set<EndpointKey>();
    for (const { service: name, instance } of this.down) {
      const service = this.#snapshot.services.get(name);
      if (service === undefined) continue;
      if (instance === undefined) {
        services.add(service);
        for (const endpoint of addressesOf(service)) candidates.add(endpointKey(endpoint));
      }
      for (const { id, address, draining } of service.instances) {
        if (instance === undefined ? !draining : id === instance) dead.add(endpointKey(address));
      }
    }
    const down = new Set<EndpointKey>();
    for (const key of [...candidates, ...dead]) if (this.#isDown(key, services, dead)) down.add(key);
    return down;
  }

  /**
   * Services that share an address decide together (see route/lookup): claims on whole services count where there are
   * any. An instance is one process, whatever names it goes by.
   */
  #isDown(key: EndpointKey, services: ReadonlySet<Service>, dead: ReadonlySet<EndpointKey>): boolean {
    const claims = this.#snapshot.destinations.get(key) ?? [];
    const whole = claims.filter(({ instance }) => instance === undefined);
    if (whole.length === 0) return claims.length > 0 && dead.has(key);
    return whole.every(({ service: name }) => {
      const service = this.#snapshot.services.get(name);
      return service !== undefined && (services.has(service) || !service.instances.some(isLive));
    });
  }
}

function isLive({ draining }: { readonly draining: boolean }): boolean {
  return !draining;
}
