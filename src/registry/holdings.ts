import type { MeshNode, NodeName, Service, ServiceName } from '../model/service.ts';
import { canonicalService, sameNode, sameService } from './canonical.ts';
import { registryLimits } from './limits.ts';
import type { SourceUpdate } from './source.ts';

/** A fact as a source holds it. */
export interface Held<T> {
  readonly value: T;
  /** `cache` until the source itself said it in this process. */
  readonly origin: 'live' | 'cache';
  /** When it became what it is (in this process), milliseconds since the epoch. */
  readonly changedAt: number;
  /** For cached facts: when the source last confirmed them. */
  readonly confirmedAt: number | undefined;
}

/** Names whose fact is now another one, or none. */
export interface Touched {
  readonly services: ReadonlySet<ServiceName>;
  readonly nodes: ReadonlySet<NodeName>;
}

/**
 * What one source knows: its own words, and, until it has spoken completely, what the cache remembers of it.
 * Bounded by {@link registryLimits}: an entry that would pass a bound is not taken and counted in `refused`.
 */
export class Holdings {
  readonly services = new Map<ServiceName, Held<Service>>();
  readonly nodes = new Map<NodeName, Held<MeshNode>>();
  #instances = 0;
  #refused = new Set<string>();

  get instances(): number {
    return this.#instances;
  }

  /** Entries that were not taken because of a bound. */
  get refused(): number {
    return this.#refused.size;
  }

  /** True while something here is known from the cache only. */
  get cached(): boolean {
    for (const held of this.services.values()) if (held.origin === 'cache') return true;
    for (const held of this.nodes.values()) if (held.origin === 'cache') return true;
    return false;
  }

  /** Takes what the cache remembers. Never replaces what the source itself said. */
  seed(services: Iterable<Held<Service>>, nodes: Iterable<Held<MeshNode>>): Touched {
    const touched = { services: new Set<ServiceName>(), nodes: new Set<NodeName>() };
    for (const held of services) {
      const name = held.value.name;
      if (this.services.has(name)) continue;
      const value = canonicalService(held.value);
      if (this.#putService({ ...held, value })) touched.services.add(name);
    }
    for (const held of nodes) {
      if (this.nodes.has(held.value.name)) continue;
      if (this.#putNode(held)) touched.nodes.add(held.value.name);
    }
    return touched;
  }

  /** Takes what the source says. */
  apply(update: SourceUpdate, now: number): Touched {
    const touched = { services: new Set<ServiceName>(), nodes: new Set<NodeName>() };
    const live = { origin: 'live', changedAt: now, confirmedAt: undefined } as const;
    if (update.kind === 'full') {
      this.#refused.clear();
      const named = new Set<string>();
      for (const service of update.services) named.add(service.name);
      for (const [name, held] of this.services) {
        if (named.has(name) || (held.origin === 'cache' && !update.complete)) continue;
        this.#dropService(name);
        touched.services.add(name);
      }
      const nodes = new Set<string>();
      for (const node of update.nodes) nodes.add(node.name);
      for (const [name, held] of this.nodes) {
        if (nodes.has(name) || (held.origin === 'cache' && !update.complete)) continue;
        this.nodes.delete(name);
        touched.nodes.add(name);
      }
    } else {
      for (const name of update.removedServices) if (this.#dropService(name)) touched.services.add(name);
      for (const name of update.removedNodes) if (this.nodes.delete(name)) touched.nodes.add(name);
    }
    for (const given of update.services) {
      const value = canonicalService(given);
      const before = this.services.get(value.name);
      if (before !== undefined && sameService(before.value, value)) {
        if (before.origin === 'cache') this.services.set(value.name, { ...live, value: before.value });
        continue;
      }
      if (this.#putService({ ...live, value })) touched.services.add(value.name);
    }
    for (const value of update.nodes) {
      const before = this.nodes.get(value.name);
      if (before !== undefined && sameNode(before.value, value)) {
        if (before.origin === 'cache') this.nodes.set(value.name, { ...live, value: before.value });
        continue;
      }
      if (this.#putNode({ ...live, value })) touched.nodes.add(value.name);
    }
    return touched;
  }

  #putService(held: Held<Service>): boolean {
    const { name, instances } = held.value;
    const before = this.services.get(name);
    const total = this.#instances - (before?.value.instances.length ?? 0) + instances.length;
    const full = before === undefined && this.services.size >= registryLimits.services;
    if (full || total > registryLimits.instances || instances.length > registryLimits.instancesPerService) {
      this.#refused.add(name);
      return false;
    }
    this.#refused.delete(name);
    this.#instances = total;
    this.services.set(name, held);
    return true;
  }

  #dropService(name: ServiceName): boolean {
    const held = this.services.get(name);
    this.#refused.delete(name);
    if (held === undefined) return false;
    this.#instances -= held.value.instances.length;
    return this.services.delete(name);
  }

  #putNode(held: Held<MeshNode>): boolean {
    const { name } = held.value;
    if (!this.nodes.has(name) && this.nodes.size >= registryLimits.nodes) {
      this.#refused.add(`node ${name}`);
      return false;
    }
    this.nodes.set(name, held);
    return true;
  }
}
