import type { Endpoint } from '../model/address.ts';
import type { BalancePolicy, MeshNode, NodeName, Service, ServiceName } from '../model/service.ts';

/*
 * What a registry adapter is. Two facts are kept apart everywhere: *absent* (the registry answered, and the service
 * is not there: it is removed) and *unreachable* (the registry did not answer: nothing is removed).
 */

/** Everything that a source knows. What it does not name is gone. */
interface FullUpdate {
  readonly kind: 'full';
  readonly services: readonly Service[];
  readonly nodes: readonly MeshNode[];
  /**
   * False when this cannot be all: a file is broken and never was read before, a gossip agent has not joined yet.
   * What a cache remembers of this source then stays beside what is named here.
   */
  readonly complete: boolean;
}

/** What became different since the last update. Before the first full one it says what is there, and removes nothing. */
interface ChangeUpdate {
  readonly kind: 'change';
  readonly services: readonly Service[];
  readonly removedServices: readonly ServiceName[];
  readonly nodes: readonly MeshNode[];
  readonly removedNodes: readonly NodeName[];
}

export type SourceUpdate = FullUpdate | ChangeUpdate;

/** Where a source stands: never answered yet, following its registry, or cut off from it. */
export type SourceState = 'connecting' | 'synced' | 'unreachable';

/** A source's own account of itself. Times are milliseconds since the epoch. */
export interface SourceStatus {
  readonly state: SourceState;
  /** When it came into this state. */
  readonly since: number;
  /** When the registry last confirmed everything known of it; undefined before the first time. */
  readonly confirmedAt: number | undefined;
  /** Why it is unreachable; undefined in the other states. */
  readonly lastError: string | undefined;
  /** What is wrong in the registry's content now, one sentence each, at most {@link MAX_PROBLEMS}. */
  readonly problems: readonly string[];
}

/** Problems that one source lists at once; more are counted in a last line. */
export const MAX_PROBLEMS = 100;

export interface SourceListener {
  /** New facts. Called in the order in which they became true; never after `stop` resolved. */
  update(update: SourceUpdate): void;
  /** The status is another than before (not for a mere confirmation). */
  status(status: SourceStatus): void;
}

/** What may be asked of a registry that is too large to be followed as a whole. */
export type Question =
  | { readonly kind: 'service'; readonly name: ServiceName }
  | { readonly kind: 'address'; readonly endpoint: Endpoint };

/** A registry adapter. Every implementation passes test/unit/registry/source.conformance.ts. */
export interface Source {
  /** Provenance: unique among the configured sources and the same after a restart, such as `serf:127.0.0.1:7373`. */
  readonly name: string;
  readonly status: SourceStatus;
  /** Begins to follow the registry, and goes on trying for as long as it takes. Called once. */
  start(listener: SourceListener): void;
  /** Ends everything that `start` began. Idempotent; nothing is told after it was called. */
  stop(): Promise<void>;
  /**
   * Answers one question on demand; only for registries that cannot be followed whole. Undefined means that the
   * registry does not know; a registry that cannot be asked rejects with a MeshError of code `registry`.
   */
  lookup?(question: Question, signal: AbortSignal): Promise<Service | undefined>;
}

/** The part of a logger that registries use. */
export interface RegistryLog {
  info(fields: object, text: string): void;
  warn(fields: object, text: string): void;
}

/** What every source is given beside its own configuration. */
export interface SourceContext {
  /** Zone of an instance whose registry names none. */
  readonly zone: string;
  /** Policy of a service whose registry names none. */
  readonly balance: BalancePolicy;
  readonly log: RegistryLog;
}
