import { type EndpointKey, endpointKey } from '../model/address.ts';
import { PersistentMap } from '../model/persistent-map.ts';
import type { Service } from '../model/service.ts';
import { type Claim, emptySnapshot, type Snapshot } from '../model/snapshot.ts';
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
}

/**
 * The members of the sets, as they follow from a snapshot: never loopback, link-local and multicast addresses, whatever a
 * registry says. Cost follows what changed from one snapshot to the next, not the catalogue.
 */
export class SetPlanner {
  readonly #node: string;
  readonly #services: ReadonlySet<string>;
  readonly #facts = new WeakMap<Service, Facts>();
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
    for (const [name, service] of snapshot.services.changesSince(before.services)) {
      const wants = service?.source === 'transparent' && this.#factsOf(service).hosted.size > 0;
      if (wants) this.#transparent.add(name);
      else this.#transparent.delete(name);
    }
    this.#judge(Array.from(snapshot.destinations.changesSince(before.destinations), ([key]) => key));
    return this.#plan;
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
    const changes = record(setRoles, () => record(families, () => [] as [EndpointKey, true | undefined][]));
    for (const key of keys) {
      if (NEVER.test(key)) continue;
      const family: Family = key.startsWith('[') ? 'ipv6' : 'ipv4';
      const roles = this.#rolesOf(key, this.#snapshot.destinations.get(key) ?? []);
      for (const role of setRoles) {
        if (roles[role] !== this.#plan[role][family].has(key))
          changes[role][family].push([key, roles[role] ? true : undefined]);
      }
    }
    if (setRoles.every((role) => families.every((family) => changes[role][family].length === 0))) return;
    this.#plan = record(setRoles, (role) =>
      record(families, (family) => {
        const changed = changes[role][family];
        return changed.length === 0 ? this.#plan[role][family] : this.#plan[role][family].with(changed);
      }),
    );
  }

  #rolesOf(key: EndpointKey, claims: readonly Claim[]): Record<SetRole, boolean> {
    const roles = { strict: false, hosted: false, redirect: false, down: this.#down.has(key) };
    let dead = claims.length > 0;
    for (const claim of claims) {
      const service = this.#snapshot.services.get(claim.service);
      if (service === undefined) continue;
      const { live, hosted } = this.#factsOf(service);
      if (service.mode === 'strict') {
        roles.strict = true;
        if (hosted.has(key)) roles.hosted = true;
      }
      if (this.#services.size === 0 || this.#services.has(service.name)) roles.redirect = true;
      // The address of an instance says itself whether somebody is there.
      if (live || claim.instance !== undefined) dead = false;
    }
    roles.down ||= dead;
    return roles;
  }

  #factsOf(service: Service): Facts {
    const known = this.#facts.get(service);
    if (known !== undefined) return known;
    const { instances } = service;
    const facts: Facts = {
      live: instances.some(({ draining }) => !draining),
      hosted: new Set(
        instances.filter(({ node }) => node === this.#node).map(({ address }) => endpointKey(address)),
      ),
    };
    this.#facts.set(service, facts);
    return facts;
  }
}
