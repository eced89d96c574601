import { type EndpointKey, endpointKey } from '../model/address.ts';
import { PersistentMap } from '../model/persistent-map.ts';
import type { Service } from '../model/service.ts';
import { type Claim, emptySnapshot, type Snapshot } from '../model/snapshot.ts';
import { anywhereKey, HostedPorts, portOf } from './hosted-ports.ts';
import { type Family, families, type SetRole, setRoles } from './names.ts';

/** Members of one set; copies share what did not change. */
export type Destinations = PersistentMap<EndpointKey, true>;
/** What every set is to hold. */
export type SetPlan = Readonly<Record<SetRole, Readonly<Record<Family, Destinations>>>>;

/**
 * What no service can be reached at through a redirect, as keys begin: this host's loopback, unspecified, link-local
 * (IPv6 needs a zone that a claim does not have; on IPv4 clouds keep their metadata service there), multicast,
 * broadcast. 240.0.0.0/4 stays in: virtual addresses live there. Text suffices, since keys are canonical, and
 * parsing 100,000 of them would hold the supervisor for 300 ms at every change.
 */
const NEVER =
  /^(?:127\.|0\.|169\.254\.|2(?:2[4-9]|3\d)\.|255\.255\.255\.255:|\[(?:::1?\]|f(?:e[89ab]|f)[0-9a-f]{0,2}:))/;

const EMPTY: Destinations = PersistentMap.empty<EndpointKey, true>();

function record<K extends string, V>(keys: readonly K[], value: (key: K) => V): Record<K, V> {
  return Object.fromEntries(keys.map((key) => [key, value(key)])) as Record<K, V>;
}

/** What is decided for each address. */
type JudgedRole = Exclude<SetRole, 'ports'>;
const judgedRoles: readonly JudgedRole[] = setRoles.filter((role) => role !== 'ports');

/** Nothing in any set. */
export const emptySets: SetPlan = record(setRoles, () => record(families, () => EMPTY));

interface SetPlannerOptions {
  /** Name of this host: its instances of strict services are closed to others. */
  readonly node: string;
  /** `capture.only.services`: only what these claim is redirected; empty: what any service claims. */
  readonly services: readonly string[];
}

/** What is asked of a service for each of its addresses; kept for as long as the service is the same value. */
interface Facts {
  /** Some instance takes new connections. */
  readonly live: boolean;
  /** Addresses of its instances on this host. */
  readonly hosted: ReadonlySet<EndpointKey>;
  /** Their ports, if the service is strict. */
  readonly closed: ReadonlySet<number>;
}

const NO_PORTS: ReadonlySet<number> = new Set();

/**
 * The members of the sets, as they follow from a snapshot: never loopback, link-local and multicast addresses, whatever a
 * registry says. Cost follows what changed from one snapshot to the next, not the catalogue.
 */
export class SetPlanner {
  readonly #node: string;
  readonly #services: ReadonlySet<string>;
  readonly #facts = new WeakMap<Service, Facts>();
  /** Addresses of instances on other hosts, of services that were asked for them. */
  readonly #elsewhere = new WeakMap<Service, ReadonlySet<EndpointKey>>();
  readonly #ports = new HostedPorts();
  #snapshot: Snapshot = emptySnapshot;
  #down: ReadonlySet<EndpointKey> = new Set();
  #plan: SetPlan = emptySets;
  /** Services of this host that want to see their callers' addresses. */
  readonly #transparent = new Set<string>();

  constructor({ node, services }: SetPlannerOptions) {
    this.#node = node;
    this.#services = new Set(services);
  }

  /** The same value as before when nothing that matters has changed. */
  get plan(): SetPlan {
    return this.#plan;
  }

  /** True when a service of this host wants to see its callers' addresses. */
  get transparent(): boolean {
    return this.#transparent.size > 0;
  }

  update(snapshot: Snapshot): SetPlan {
    const before = this.#snapshot;
    this.#snapshot = snapshot;
    const closed = new Set<number>();
    for (const [name, service] of snapshot.services.changesSince(before.services)) {
      this.#countPorts(before.services.get(name), service, closed);
      const wants = service?.source === 'transparent' && this.#factsOf(service).hosted.size > 0;
      if (wants) this.#transparent.add(name);
      else this.#transparent.delete(name);
    }
    this.#judge(Array.from(snapshot.destinations.changesSince(before.destinations), ([key]) => key));
    const toggled = this.#setPorts(closed);
    // Rare: the first instance of a strict service at a port of this host, or the last one.
    if (toggled.size > 0)
      this.#judge(
        Array.from(snapshot.destinations, ([key]) => key).filter((key) => toggled.has(portOf(key))),
      );
    return this.#plan;
  }

  /** Notes what ports of strict instances on this host a service needs; those that may be others go into `touched`. */
  #countPorts(before: Service | undefined, after: Service | undefined, touched: Set<number>): void {
    const had = before === undefined ? NO_PORTS : this.#factsOf(before).closed;
    const has = after === undefined ? NO_PORTS : this.#factsOf(after).closed;
    if (had.size === 0 && has.size === 0) return;
    this.#ports.replace(had, has);
    for (const port of had) touched.add(port);
    for (const port of has) touched.add(port);
  }

  /** Takes ports into the plan or out of it; gives those for which that changed something. */
  #setPorts(touched: ReadonlySet<number>): ReadonlySet<number> {
    const changed = [...touched].filter(
      (port) => this.#ports.has(port) !== this.#plan.ports.ipv4.has(anywhereKey(port)),
    );
    if (changed.length === 0) return NO_PORTS;
    const changes = changed.map((port) => [anywhereKey(port), this.#ports.has(port) || undefined] as const);
    // A server on `::` answers with IPv4 as well, wherever its service is declared.
    const ports = record(families, (family) => this.#plan.ports[family].with(changes));
    this.#plan = { ...this.#plan, ports };
    return new Set(changed);
  }

  /** Addresses that nobody answers at by experience, beside those of services without a live instance. */
  setDown(down: ReadonlySet<EndpointKey>): SetPlan {
    const before = this.#down;
    this.#down = down;
    this.#judge([
      ...[...before].filter((key) => !down.has(key)),
      ...[...down].filter((key) => !before.has(key)),
    ]);
    return this.#plan;
  }

  /** Decides anew for these addresses to which sets they belong. */
  #judge(keys: Iterable<EndpointKey>): void {
    const changes = record(judgedRoles, () =>
      record(families, () => [] as [EndpointKey, true | undefined][]),
    );
    for (const key of keys) {
      if (NEVER.test(key)) continue;
      const family: Family = key.startsWith('[') ? 'ipv6' : 'ipv4';
      const roles = this.#rolesOf(key, this.#snapshot.destinations.get(key) ?? []);
      for (const role of judgedRoles) {
        if (roles[role] !== this.#plan[role][family].has(key))
          changes[role][family].push([key, roles[role] ? true : undefined]);
      }
    }
    if (judgedRoles.every((role) => families.every((family) => changes[role][family].length === 0))) return;
    const judged = record(judgedRoles, (role) =>
      record(families, (family) => {
        const changed = changes[role][family];
        return changed.length === 0 ? this.#plan[role][family] : this.#plan[role][family].with(changed);
      }),
    );
    this.#plan = { ...this.#plan, ...judged };
  }

  #rolesOf(key: EndpointKey, claims: readonly Claim[]): Record<JudgedRole, boolean> {
    const roles = { strict: false, hosted: false, beside: false, redirect: false, down: this.#down.has(key) };
    const closedPort = this.#ports.has(portOf(key));
    let dead = claims.length > 0;
    for (const claim of claims) {
      const service = this.#snapshot.services.get(claim.service);
      if (service === undefined) continue;
      const { live, hosted } = this.#factsOf(service);
      if (service.mode === 'strict') {
        roles.strict = true;
        if (hosted.has(key)) roles.hosted = true;
      } else if (closedPort && this.#mayBeHere(key, service)) roles.beside = true;
      if (this.#services.size === 0 || this.#services.has(service.name)) roles.redirect = true;
      // The address of an instance says itself whether somebody is there.
      if (live || claim.instance !== undefined) dead = false;
    }
    roles.down ||= dead;
    roles.beside &&= !roles.strict;
    return roles;
  }

  /** False for addresses that are another host's, and for virtual ones: what is no address of this host need not be told. */
  #mayBeHere(key: EndpointKey, service: Service): boolean {
    const port = portOf(key);
    if (service.virtual?.some((ip) => endpointKey({ ip, port }) === key) === true) return false;
    let elsewhere = this.#elsewhere.get(service);
    if (elsewhere === undefined) {
      const others = service.instances.filter(({ node }) => node !== undefined && node !== this.#node);
      elsewhere = new Set(others.map(({ address }) => endpointKey(address)));
      this.#elsewhere.set(service, elsewhere);
    }
    return !elsewhere.has(key);
  }

  #factsOf(service: Service): Facts {
    const known = this.#facts.get(service);
    if (known !== undefined) return known;
    const { instances, mode } = service;
    const here = instances.filter(({ node }) => node === this.#node);
    const facts: Facts = {
      live: instances.some(({ draining }) => !draining),
      hosted: new Set(here.map(({ address }) => endpointKey(address))),
      closed: mode === 'strict' ? new Set(here.map(({ address }) => address.port)) : NO_PORTS,
    };
    this.#facts.set(service, facts);
    return facts;
  }
}
