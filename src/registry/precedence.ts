import { MeshError } from '../model/errors.ts';
import type { MeshNode, NodeName, Service, ServiceName } from '../model/service.ts';
import { sameService } from './canonical.ts';
import { type Held, Holdings } from './holdings.ts';
import type { RegistryLog, Source } from './source.ts';

/** Where a fact in the snapshot comes from. */
export interface Provenance {
  /** Name of the source. */
  readonly source: string;
  /** `cache`: remembered from an earlier run, not yet said by the source itself. */
  readonly origin: 'live' | 'cache';
  /** When it became what it is; milliseconds since the epoch. */
  readonly changedAt: number;
  /** When its source last confirmed it; milliseconds since the epoch. */
  readonly confirmedAt: number;
}

/** A service that several sources describe differently; the first of them is used. */
export interface Conflict {
  readonly service: ServiceName;
  readonly used: string;
  readonly ignored: readonly string[];
}

/** What each source says, and who is believed: the first, in their configured order, that knows a name. */
export class Precedence {
  readonly #sources: readonly Source[];
  readonly #holdings = new Map<string, Holdings>();
  readonly #conflicts = new Map<ServiceName, Conflict>();
  readonly #log: RegistryLog;

  /** Throws a MeshError when two sources have one name. */
  constructor(sources: readonly Source[], log: RegistryLog) {
    this.#sources = sources;
    this.#log = log;
    for (const { name } of sources) {
      if (this.#holdings.has(name)) {
        throw new MeshError('configuration', 'operator', `registry ${name} is configured twice`);
      }
      this.#holdings.set(name, new Holdings());
    }
  }

  /** What this source says. */
  holdings(source: Source): Holdings {
    return this.#holdings.get(source.name)!;
  }

  /** Services that the sources describe differently, as far as {@link service} was asked for them. */
  get conflicts(): ReadonlyMap<ServiceName, Conflict> {
    return this.#conflicts;
  }

  /** The service as the first source that knows it says; differences are written down as a conflict. */
  service(name: ServiceName): Service | undefined {
    let winner: Service | undefined;
    let used = '';
    let ignored: string[] | undefined;
    for (const source of this.#sources) {
      const held = this.holdings(source).services.get(name);
      if (held === undefined) continue;
      if (winner === undefined) {
        winner = held.value;
        used = source.name;
      } else if (!sameService(winner, held.value)) {
        ignored ??= [];
        ignored.push(source.name);
      }
    }
    this.#note(name, used, ignored);
    return winner;
  }

  /** The node as the first source that knows it says. */
  node(name: NodeName): MeshNode | undefined {
    for (const source of this.#sources) {
      const held = this.holdings(source).nodes.get(name);
      if (held !== undefined) return held.value;
    }
    return undefined;
  }

  serviceProvenance(name: ServiceName): Provenance | undefined {
    return this.#provenance((holdings) => holdings.services.get(name));
  }

  nodeProvenance(name: NodeName): Provenance | undefined {
    return this.#provenance((holdings) => holdings.nodes.get(name));
  }

  #note(service: ServiceName, used: string, ignored: readonly string[] | undefined): void {
    if (ignored === undefined) {
      this.#conflicts.delete(service);
      return;
    }
    if (!this.#conflicts.has(service)) {
      this.#log.warn({ service, used, ignored }, 'registries disagree; the first one is used');
    }
    this.#conflicts.set(service, { service, used, ignored });
  }

  #provenance(find: (holdings: Holdings) => Held<unknown> | undefined): Provenance | undefined {
    for (const source of this.#sources) {
      const held = find(this.holdings(source));
      if (held === undefined) continue;
      const confirmedAt = held.confirmedAt ?? source.status.confirmedAt ?? held.changedAt;
      return { source: source.name, origin: held.origin, changedAt: held.changedAt, confirmedAt };
    }
    return undefined;
  }
}
