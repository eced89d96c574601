import { MeshError } from '../model/errors.ts';
import type { MeshNode, NodeName, Service, ServiceName } from '../model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot, type SnapshotDelta } from '../model/snapshot.ts';
import { sameNode, sameService } from './canonical.ts';
import type { CatalogueRecord } from './catalogue-record.ts';
import { type Held, Holdings, type Touched } from './holdings.ts';
import type { Question, RegistryLog, Source, SourceStatus, SourceUpdate } from './source.ts';

/**
 * Instances (each service and node counts as one more) that one delta carries at most, so that a worker is busy
 * with one for about a millisecond; a larger change becomes several deltas. A single larger service is not split.
 */
const MAX_DELTA_WEIGHT = 1000;
/** Conflicts that are listed; all are counted. */
const MAX_CONFLICTS_SHOWN = 100;

/** Where a fact in the snapshot comes from. */
interface Provenance {
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
interface Conflict {
  readonly service: ServiceName;
  readonly used: string;
  readonly ignored: readonly string[];
}

/** One line of `mesh-node status registries`. */
interface RegistryStatus extends SourceStatus {
  readonly name: string;
  readonly services: number;
  readonly instances: number;
  readonly nodes: number;
  /** Something of this source is known from the cache only. */
  readonly cached: boolean;
  /** Entries that were not taken because of a bound. */
  readonly refused: number;
}

interface CatalogueStatus {
  readonly version: number;
  readonly services: number;
  readonly nodes: number;
  readonly registries: readonly RegistryStatus[];
  readonly conflicts: readonly Conflict[];
  readonly conflictCount: number;
}

interface CatalogueListener {
  /** One step from version `delta.base` to the next. Several in a row when a change is large; `snapshot` is then the last. */
  delta(delta: SnapshotDelta): void;
  /** What {@link Catalogue.records} yields is no longer what it was: time to write it down. */
  changed?(): void;
  /** A source came into another state, or its problems are others. */
  status?(source: string, status: SourceStatus): void;
}

/** Adds what this host gives a service itself (virtual addresses); called for each one before it is published. */
type Decorate = (service: Service) => Service;

/**
 * All sources as one: merged in their configured order (the first source that knows a name wins), with provenance,
 * kept as the newest snapshot and told as minimal deltas.
 */
export class Catalogue {
  readonly #sources: readonly Source[];
  readonly #holdings = new Map<string, Holdings>();
  readonly #listeners = new Set<CatalogueListener>();
  readonly #conflicts = new Map<ServiceName, Conflict>();
  readonly #log: RegistryLog;
  readonly #decorate: Decorate;
  #snapshot: Snapshot = emptySnapshot;

  /** Sources in order of precedence. Their names must differ. */
  constructor(sources: readonly Source[], log: RegistryLog, decorate: Decorate = (service) => service) {
    this.#sources = sources;
    this.#log = log;
    this.#decorate = decorate;
    for (const { name } of sources) {
      if (this.#holdings.has(name)) {
        throw new MeshError('configuration', 'operator', `registry ${name} is configured twice`);
      }
      this.#holdings.set(name, new Holdings());
    }
  }

  /** The newest snapshot. */
  get snapshot(): Snapshot {
    return this.#snapshot;
  }

  /** Tells every later delta; returns the function that ends it. */
  listen(listener: CatalogueListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Takes what the file cache remembers; before `start`. Records of sources that are no longer configured are
   * ignored. Each source's part stays until that source has answered.
   */
  seed(records: Iterable<CatalogueRecord>): void {
    const services = new Map<string, Held<Service>[]>();
    const nodes = new Map<string, Held<MeshNode>[]>();
    const now = Date.now();
    for (const record of records) {
      const { source, confirmedAt } = record;
      const common = { origin: 'cache', changedAt: now, confirmedAt } as const;
      if (record.kind === 'service') listAt(services, source).push({ ...common, value: record.service });
      else listAt(nodes, source).push({ ...common, value: record.node });
    }
    for (const { name } of this.#sources) {
      const touched = this.#holdings.get(name)!.seed(services.get(name) ?? [], nodes.get(name) ?? []);
      this.#publish(touched);
    }
  }

  /** Publishes these services again where what this host adds to them has changed. */
  decorateAgain(services: Iterable<ServiceName>): void {
    this.#publish({ services: new Set(services), nodes: new Set() });
  }

  /** Starts every source. */
  start(): void {
    for (const source of this.#sources) {
      source.start({
        update: (update) => this.#take(source, update),
        status: (status) => {
          for (const listener of this.#listeners) listener.status?.(source.name, status);
        },
      });
    }
  }

  /** Stops every source; the snapshot stays. */
  async stop(): Promise<void> {
    await Promise.all(this.#sources.map((source) => source.stop()));
  }

  /**
   * The whole snapshot as a chain of deltas for a worker that has nothing. The receiver begins with
   * `{ ...emptySnapshot, version: deltas[0].base }` and ends at this catalogue's version.
   */
  full(): readonly SnapshotDelta[] {
    const changes = {
      services: [...this.#snapshot.services.values()],
      nodes: [...this.#snapshot.nodes.values()],
    };
    const parts = split({ ...changes, removedServices: [], removedNodes: [] });
    if (parts.length === 0) parts.push({ services: [], removedServices: [], nodes: [], removedNodes: [] });
    return parts.map((part, i) => ({ ...part, base: this.#snapshot.version - parts.length + i }));
  }

  /** Everything that every source knows, for the file cache. */
  *records(): IterableIterator<CatalogueRecord> {
    for (const { name: source, status } of this.#sources) {
      const confirmed = status.confirmedAt ?? 0;
      const holdings = this.#holdings.get(source)!;
      for (const { value, confirmedAt } of holdings.nodes.values()) {
        yield { kind: 'node', source, confirmedAt: confirmedAt ?? confirmed, node: value };
      }
      for (const { value, confirmedAt } of holdings.services.values()) {
        yield { kind: 'service', source, confirmedAt: confirmedAt ?? confirmed, service: value };
      }
    }
  }

  /** Who said what the snapshot holds of this service; undefined when it holds nothing. */
  provenance(service: ServiceName): Provenance | undefined {
    return this.#provenance((holdings) => holdings.services.get(service));
  }

  /** Who said what the snapshot holds of this node; undefined when it holds nothing. */
  nodeProvenance(node: NodeName): Provenance | undefined {
    return this.#provenance((holdings) => holdings.nodes.get(node));
  }

  /**
   * Asks the sources that answer on demand, in order; the first that knows wins. Undefined when all of them answered
   * and none knows; a MeshError of code `registry` when nobody knows and one could not be asked.
   */
  async lookup(question: Question, signal: AbortSignal): Promise<Service | undefined> {
    let failure: unknown;
    for (const source of this.#sources) {
      if (source.lookup === undefined) continue;
      try {
        const answer = await source.lookup(question, signal);
        if (answer !== undefined) return answer;
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure === undefined) return undefined;
    if (failure instanceof MeshError) throw failure;
    throw new MeshError('registry', 'registry', 'a registry could not be asked', {
      retry: 'safe',
      cause: failure,
    });
  }

  get status(): CatalogueStatus {
    return {
      version: this.#snapshot.version,
      services: this.#snapshot.services.size,
      nodes: this.#snapshot.nodes.size,
      registries: this.#sources.map((source) => {
        const { services, nodes, instances, cached, refused } = this.#holdings.get(source.name)!;
        const counts = { services: services.size, nodes: nodes.size, instances, cached, refused };
        return { name: source.name, ...source.status, ...counts };
      }),
      conflicts: Array.from(this.#conflicts.values()).slice(0, MAX_CONFLICTS_SHOWN),
      conflictCount: this.#conflicts.size,
    };
  }

  #provenance(find: (holdings: Holdings) => Held<unknown> | undefined): Provenance | undefined {
    for (const source of this.#sources) {
      const held = find(this.#holdings.get(source.name)!);
      if (held === undefined) continue;
      const confirmedAt = held.confirmedAt ?? source.status.confirmedAt ?? held.changedAt;
      return { source: source.name, origin: held.origin, changedAt: held.changedAt, confirmedAt };
    }
    return undefined;
  }

  #take(source: Source, update: SourceUpdate): void {
    const holdings = this.#holdings.get(source.name)!;
    const refused = holdings.refused;
    const touched = holdings.apply(update, Date.now());
    if (holdings.refused > refused) {
      this.#log.warn(
        { source: source.name, refused: holdings.refused },
        'registry passed a bound; entries not taken',
      );
    }
    this.#publish(touched);
  }

  #publish(touched: Touched): void {
    if (touched.services.size === 0 && touched.nodes.size === 0) return;
    const services: Service[] = [];
    const removedServices: ServiceName[] = [];
    for (const name of touched.services) {
      const said = this.#winner(name);
      const winner = said && this.#decorate(said);
      const published = this.#snapshot.services.get(name);
      if (winner === undefined) {
        if (published !== undefined) removedServices.push(name);
      } else if (published === undefined || !sameService(published, winner)) services.push(winner);
    }
    const nodes: MeshNode[] = [];
    const removedNodes: NodeName[] = [];
    for (const name of touched.nodes) {
      const winner = this.#sources
        .map((source) => this.#holdings.get(source.name)!.nodes.get(name))
        .find(Boolean);
      const published = this.#snapshot.nodes.get(name);
      if (winner === undefined) {
        if (published !== undefined) removedNodes.push(name);
      } else if (published === undefined || !sameNode(published, winner.value)) nodes.push(winner.value);
    }
    const changes = { services, removedServices, nodes, removedNodes };
    const parts = split(changes);
    if (parts.length > 0) {
      // Applied as one: a delta's cost grows with the catalogue when it touches many addresses (100 parts: 2 s, one: 0.1 s).
      const base = this.#snapshot.version;
      const next = applyDelta(this.#snapshot, { base, ...changes });
      this.#snapshot = Object.freeze({ ...next, version: base + parts.length });
      parts.forEach((part, i) => {
        for (const listener of this.#listeners) listener.delta({ base: base + i, ...part });
      });
    }
    for (const listener of this.#listeners) listener.changed?.();
  }

  /** The service as the first source that knows it says; differences are written down as a conflict. */
  #winner(name: ServiceName): Service | undefined {
    let winner: Service | undefined;
    let used = '';
    let ignored: string[] | undefined;
    for (const source of this.#sources) {
      const held = this.#holdings.get(source.name)!.services.get(name);
      if (held === undefined) continue;
      if (winner === undefined) {
        winner = held.value;
        used = source.name;
      } else if (!sameService(winner, held.value)) {
        ignored ??= [];
        ignored.push(source.name);
      }
    }
    if (ignored === undefined) this.#conflicts.delete(name);
    else {
      if (!this.#conflicts.has(name)) {
        this.#log.warn({ service: name, used, ignored }, 'registries disagree; the first one is used');
      }
      this.#conflicts.set(name, { service: name, used, ignored });
    }
    return winner;
  }
}

type Changes = Omit<SnapshotDelta, 'base'>;

/** Cuts a change into parts of bounded weight: nodes first, so that no instance is known before its node. */
function split(changes: Changes): Changes[] {
  const parts: Changes[] = [];
  const fresh = () => ({
    services: [] as Service[],
    removedServices: [] as ServiceName[],
    nodes: [] as MeshNode[],
    removedNodes: [] as NodeName[],
  });
  let part = fresh();
  let weight = 0;
  const add = (more: number): typeof part => {
    if (weight > 0 && weight + more > MAX_DELTA_WEIGHT) {
      parts.push(part);
      part = fresh();
      weight = 0;
    }
    weight += more;
    return part;
  };
  for (const node of changes.nodes) add(1).nodes.push(node);
  for (const service of changes.services) add(1 + service.instances.length).services.push(service);
  for (const name of changes.removedServices) add(1).removedServices.push(name);
  for (const name of changes.removedNodes) add(1).removedNodes.push(name);
  if (weight > 0) parts.push(part);
  return parts;
}

function listAt<T>(map: Map<string, T[]>, key: string): T[] {
  const known = map.get(key);
  if (known !== undefined) return known;
  const list: T[] = [];
  map.set(key, list);
  return list;
}
