import { MeshError } from '../model/errors.ts';
import type { MeshNode, NodeName, Service, ServiceName } from '../model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot, type SnapshotDelta } from '../model/snapshot.ts';
import { sameNode, sameService } from './canonical.ts';
import type { CatalogueRecord } from './catalogue-record.ts';
import { type Changes, deltaParts, emptyPart } from './delta-parts.ts';
import type { Held, Touched } from './holdings.ts';
import { type Conflict, Precedence, type Provenance } from './precedence.ts';
import type { Question, RegistryLog, Source, SourceStatus, SourceUpdate } from './source.ts';

/** Conflicts that are listed; all are counted. */
const MAX_CONFLICTS_SHOWN = 100;

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
  readonly #precedence: Precedence;
  readonly #listeners = new Set<CatalogueListener>();
  readonly #log: RegistryLog;
  readonly #decorate: Decorate;
  #snapshot: Snapshot = emptySnapshot;

  /** Sources in order of precedence. Their names must differ. */
  constructor(sources: readonly Source[], log: RegistryLog, decorate: Decorate = (service) => service) {
    this.#sources = sources;
    this.#log = log;
    this.#decorate = decorate;
    this.#precedence = new Precedence(sources, log);
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
    for (const source of this.#sources) {
      const holdings = this.#precedence.holdings(source);
      this.#publish(holdings.seed(services.get(source.name) ?? [], nodes.get(source.name) ?? []));
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
    const parts = deltaParts({ ...changes, removedServices: [], removedNodes: [] });
    if (parts.length === 0) parts.push(emptyPart());
    return parts.map((part, i) => ({ ...part, base: this.#snapshot.version - parts.length + i }));
  }

  /** Everything that every source knows, for the file cache. */
  *records(): IterableIterator<CatalogueRecord> {
    for (const from of this.#sources) {
      const source = from.name;
      const confirmed = from.status.confirmedAt ?? 0;
      const holdings = this.#precedence.holdings(from);
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
    return this.#precedence.serviceProvenance(service);
  }

  /** Who said what the snapshot holds of this node; undefined when it holds nothing. */
  nodeProvenance(node: NodeName): Provenance | undefined {
    return this.#precedence.nodeProvenance(node);
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
    const { conflicts } = this.#precedence;
    return {
      version: this.#snapshot.version,
      services: this.#snapshot.services.size,
      nodes: this.#snapshot.nodes.size,
      registries: this.#sources.map((source) => {
        const { services, nodes, instances, cached, refused } = this.#precedence.holdings(source);
        const counts = { services: services.size, nodes: nodes.size, instances, cached, refused };
        return { name: source.name, ...source.status, ...counts };
      }),
      conflicts: Array.from(conflicts.values()).slice(0, MAX_CONFLICTS_SHOWN),
      conflictCount: conflicts.size,
    };
  }

  #take(source: Source, update: SourceUpdate): void {
    const holdings = this.#precedence.holdings(source);
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
    const changes = this.#changes(touched);
    const parts = deltaParts(changes);
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

  /** How the snapshot has to change now. */
  #changes(touched: Touched): Changes {
    const changes = emptyPart();
    for (const name of touched.services) {
      const said = this.#precedence.service(name);
      const service = said && this.#decorate(said);
      const published = this.#snapshot.services.get(name);
      if (service === undefined) {
        if (published !== undefined) changes.removedServices.push(name);
      } else if (published === undefined || !sameService(published, service)) changes.services.push(service);
    }
    for (const name of touched.nodes) {
      const node = this.#precedence.node(name);
      const published = this.#snapshot.nodes.get(name);
      if (node === undefined) {
        if (published !== undefined) changes.removedNodes.push(name);
      } else if (published === undefined || !sameNode(published, node)) changes.nodes.push(node);
    }
    return changes;
  }
}

function listAt<T>(map: Map<string, T[]>, key: string): T[] {
  const known = map.get(key);
  if (known !== undefined) return known;
  const list: T[] = [];
  map.set(key, list);
  return list;
}
