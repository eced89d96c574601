import { type Endpoint, endpointKey, type Ip } from '../model/address.ts';
import { type Service, type ServiceName, servicePorts } from '../model/service.ts';

/** Most endpoints that the host names of one service can claim. */
const MAX_RESOLVED = 1024;

const NONE: readonly Endpoint[] = [];

/** Which services have which `hosts`, and what these mean where they resolve to. */
export class ServiceHosts {
  readonly #hosts = new Map<ServiceName, readonly string[]>();
  readonly #users = new Map<string, Set<ServiceName>>();

  /** Every host name of every service. */
  get names(): Iterable<string> {
    return this.#users.keys();
  }

  /** Every service with hosts. */
  get services(): readonly ServiceName[] {
    return [...this.#hosts.keys()];
  }

  /** True when the names of all services are others than before. */
  set(service: Service): boolean {
    const before = this.#hosts.get(service.name) ?? [];
    if (before === service.hosts) return false;
    const removed = this.remove(service.name, new Set(service.hosts));
    if (service.hosts.length === 0) return removed;
    this.#hosts.set(service.name, service.hosts);
    let added = false;
    for (const host of service.hosts) {
      const users = this.#users.get(host);
      if (users === undefined) this.#users.set(host, new Set([service.name]));
      else users.add(service.name);
      added ||= users === undefined;
    }
    return added || removed;
  }

  /** The service is gone, or keeps only these hosts. True when a name has no user any more. */
  remove(service: ServiceName, kept: ReadonlySet<string> = new Set()): boolean {
    let removed = false;
    for (const host of this.#hosts.get(service) ?? []) {
      if (kept.has(host)) continue;
      const users = this.#users.get(host);
      users?.delete(service);
      if (users?.size !== 0) continue;
      this.#users.delete(host);
      removed = true;
    }
    this.#hosts.delete(service);
    return removed;
  }

  /** The services that have one of these host names. */
  usersOf(hosts: Iterable<string>): ReadonlySet<ServiceName> {
    const services = new Set<ServiceName>();
    for (const host of hosts) for (const service of this.#users.get(host) ?? []) services.add(service);
    return services;
  }
}

/**
 * What the hosts of a service resolve to, with its ports. An address of an instance of its own keeps meaning that
 * instance: a name that lists the instances is an ordinary way to find them, and Redis Cluster and Kafka depend on
 * reaching the one they name.
 */
export function resolvedEndpoints(
  service: Service,
  addresses: (host: string) => readonly Ip[],
): readonly Endpoint[] {
  if (service.hosts.length === 0) return NONE;
  const taken = new Set<string>();
  for (const instance of service.instances) taken.add(endpointKey(instance.address));
  for (const declared of service.addresses) taken.add(endpointKey(declared));
  const ports = servicePorts(service);
  const found: Endpoint[] = [];
  for (const host of service.hosts) {
    for (const ip of addresses(host)) {
      for (const port of ports) {
        const endpoint = { ip, port };
        if (taken.has(endpointKey(endpoint))) continue;
        if (found.length === MAX_RESOLVED) return found;
        taken.add(endpointKey(endpoint));
        found.push(endpoint);
      }
    }
  }
  return found;
}
