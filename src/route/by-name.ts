import { type Endpoint, type OriginalDestination, parseIp } from '../model/address.ts';
import type { PersistentMap } from '../model/persistent-map.ts';
import { type Instance, type Service, type ServiceName, servicePorts } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';
import { lookup, type OwnListeners } from './lookup.ts';

/** Where a name goes that a caller wrote: in a Host field, as a request's authority, in the hello of TLS. */
export type NamedRoute =
  | { readonly kind: 'service'; readonly service: Service }
  | { readonly kind: 'instance'; readonly service: Service; readonly instance: Instance }
  /** An address that nobody claims. */
  | { readonly kind: 'address'; readonly endpoint: Endpoint }
  /** A name that no service has: DNS may know it. In lower case, without a final dot. */
  | { readonly kind: 'unknown'; readonly host: string }
  | {
      readonly kind: 'refuse';
      readonly reason: 'loop' | 'configuration' | 'refused' | 'no-service';
      readonly detail: string;
    };

/** Longest name that is looked at; DNS knows none that are longer. */
const MAX_HOST = 253;

/** The spelling in which names are compared; undefined for what cannot be one. */
export function normalHost(text: string): string | undefined {
  const host = (text.endsWith('.') ? text.slice(0, -1) : text).toLowerCase();
  return host === '' || host.length > MAX_HOST ? undefined : host;
}

/** The one of these services that has this name: as a service, below the domain, or among its `hosts`. */
export function serviceNamed(
  services: readonly Service[],
  text: string,
  domain: string,
): Service | undefined {
  const host = normalHost(text);
  if (host === undefined) return undefined;
  const own = services.find(({ name }) => host === name || host === `${name}.${domain}`);
  if (own !== undefined) return own;
  const having = services.filter(({ hosts }) => hosts.includes(host));
  return having.length === 1 ? having[0] : undefined;
}

/** What names mean by the newest catalogue. One for each that routes: what it remembers follows what changes. */
export class NamedRoutes {
  readonly #own: OwnListeners;
  readonly #domain: string;
  readonly #hosts = new HostIndex();

  /** `domain`: what names of services may end in, such as `mesh`. */
  constructor(own: OwnListeners, domain: string) {
    this.#own = own;
    this.#domain = domain;
  }

  /**
   * `port`: the one that was written, if any. A service is reached at its own ports; without one it is the service
   * itself that is meant. `usual`: the port of an address where none was written.
   */
  find(snapshot: Snapshot, text: string, port: number | undefined, usual: number): NamedRoute {
    const ip = parseIp(text);
    if (ip !== undefined) return this.#atAddress(snapshot, { ip, port: port ?? usual });
    const host = normalHost(text);
    if (host === undefined) return noService(text);
    const suffix = `.${this.#domain}`;
    const below = host.endsWith(suffix) ? host.slice(0, -suffix.length) : undefined;
    const named =
      snapshot.services.get(host as ServiceName) ??
      (below === undefined ? undefined : snapshot.services.get(below as ServiceName));
    if (named !== undefined) return atPort(named, port);
    return (
      this.#byHost(snapshot, host, port) ??
      (below === undefined ? { kind: 'unknown', host } : noService(host))
    );
  }

  /** What a resolved or written address means. */
  #atAddress(snapshot: Snapshot, endpoint: Endpoint): NamedRoute {
    const route = lookup(snapshot, endpoint as OriginalDestination, this.#own);
    switch (route.kind) {
      case 'service':
      case 'instance':
        return route;
      case 'passthrough':
        return { kind: 'address', endpoint };
      case 'shared':
        return route.strict
          ? {
              kind: 'refuse',
              reason: 'configuration',
              detail: 'services share the address, and one is strict',
            }
          : { kind: 'address', endpoint };
      case 'refuse':
        return { kind: 'refuse', reason: route.reason, detail: 'this agent itself' };
    }
  }

  /** Of several services with one host the port decides; where it does not, DNS says where the name leads. */
  #byHost(snapshot: Snapshot, host: string, port: number | undefined): NamedRoute | undefined {
    let found: Service | undefined;
    for (const name of this.#hosts.users(snapshot, host)) {
      const service = snapshot.services.get(name);
      if (service === undefined || (port !== undefined && !servicePorts(service).includes(port))) continue;
      if (found !== undefined) return undefined;
      found = service;
    }
    return found === undefined ? undefined : { kind: 'service', service: found };
  }
}

/** Which services have which `hosts`. Brought up to date when it is asked, at the cost of what has changed since. */
class HostIndex {
  readonly #users = new Map<string, Set<ServiceName>>();
  #services: PersistentMap<ServiceName, Service> | undefined;

  users(snapshot: Snapshot, host: string): Iterable<ServiceName> {
    this.#follow(snapshot.services);
    return this.#users.get(host) ?? [];
  }

  #follow(services: PersistentMap<ServiceName, Service>): void {
    const before = this.#services;
    if (before === services) return;
    this.#services = services;
    if (before === undefined) {
      for (const service of services.values()) this.#change(service.name, [], service.hosts);
      return;
    }
    for (const [name, service] of services.changesSince(before)) {
      this.#change(name, before.get(name)?.hosts ?? [], service?.hosts ?? []);
    }
  }

  #change(name: ServiceName, before: readonly string[], after: readonly string[]): void {
    if (before === after) return;
    for (const host of before) {
      const users = this.#users.get(host);
      if (users?.delete(name) === true && users.size === 0) this.#users.delete(host);
    }
    for (const host of after) {
      const users = this.#users.get(host);
      if (users === undefined) this.#users.set(host, new Set([name]));
      else users.add(name);
    }
  }
}

function atPort(service: Service, port: number | undefined): NamedRoute {
  if (port === undefined) return { kind: 'service', service };
  const ports = servicePorts(service);
  if (ports.includes(port)) return { kind: 'service', service };
  const known = ports.length === 0 ? 'none at all' : ports.join(', ');
  return { kind: 'refuse', reason: 'refused', detail: `${service.name} has no port ${port}, but ${known}` };
}

function noService(host: string): NamedRoute {
  return { kind: 'refuse', reason: 'no-service', detail: `nobody knows ${host.slice(0, MAX_HOST)}` };
}
