import type { Ip } from '../model/address.ts';
import type { PersistentMap } from '../model/persistent-map.ts';
import type { Service, ServiceName } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';

type Services = PersistentMap<ServiceName, Service>;

/**
 * What a snapshot does not say by itself: which service has a virtual address, and which names have services below them.
 * Brought up to date when it is asked, at the cost of what has changed since.
 */
export class NameIndex {
  readonly #byAddress = new Map<Ip, ServiceName>();
  /** Names with at least one label in front in the name of a service, and how many services that are. */
  readonly #above = new Map<string, number>();
  #services: Services | undefined;

  /** The service with this virtual address. */
  owner(snapshot: Snapshot, ip: Ip): ServiceName | undefined {
    this.#follow(snapshot.services);
    return this.#byAddress.get(ip);
  }

  /** True when a service has a name that ends in `.name`. */
  hasBelow(snapshot: Snapshot, name: string): boolean {
    this.#follow(snapshot.services);
    return this.#above.has(name);
  }

  #follow(services: Services): void {
    const before = this.#services;
    if (before === services) return;
    this.#services = services;
    if (before === undefined) {
      for (const service of services.values()) this.#add(service);
      return;
    }
    const fresh: Service[] = [];
    for (const [name, service] of services.changesSince(before)) {
      const old = before.get(name);
      if (old !== undefined) this.#remove(old);
      if (service !== undefined) fresh.push(service);
    }
    // An address may have gone from one of them to another: all that go, go first.
    for (const service of fresh) this.#add(service);
  }

  #add(service: Service): void {
    for (const ip of service.virtual ?? []) this.#byAddress.set(ip, service.name);
    for (const name of above(service.name)) this.#above.set(name, (this.#above.get(name) ?? 0) + 1);
  }

  #remove(service: Service): void {
    for (const ip of service.virtual ?? []) this.#byAddress.delete(ip);
    for (const name of above(service.name)) {
      const left = (this.#above.get(name) ?? 0) - 1;
      if (left > 0) this.#above.set(name, left);
      else this.#above.delete(name);
    }
  }
}

function* above(name: string): Iterable<string> {
  for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) yield name.slice(dot + 1);
}
