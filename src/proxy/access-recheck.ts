import type { AccessControl } from '../access/access-control.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { ConnectionEntry, Connections } from './connections.ts';

/** Connections that are asked about in one turn. */
const SLICE = 500;

export interface AccessRecheckDependencies {
  readonly connections: Connections;
  readonly access: AccessControl;
  snapshot(): Snapshot;
}

/**
 * Ends what lives and may not any more, after a change of policies. Where requests are decided about one by one, those
 * under way are finished; connections as a whole are cut, and so are those that would have to be read from now on.
 */
export class AccessRecheck {
  readonly #deps: AccessRecheckDependencies;
  #left: ConnectionEntry[] = [];
  #next: NodeJS.Immediate | undefined;

  constructor(dependencies: AccessRecheckDependencies) {
    this.#deps = dependencies;
  }

  /** Begins, or begins anew: what lives now is asked about, a slice in each turn. */
  start(): void {
    this.#left = this.#deps.connections.entries();
    this.#next ??= setImmediate(() => this.#slice());
  }

  stop(): void {
    clearImmediate(this.#next);
    this.#next = undefined;
    this.#left = [];
  }

  #slice(): void {
    this.#next = undefined;
    for (const entry of this.#left.splice(-SLICE)) this.#check(entry);
    if (this.#left.length > 0) this.#next = setImmediate(() => this.#slice());
  }

  #check(entry: ConnectionEntry): void {
    if (!this.#deps.connections.has(entry)) return;
    // Whose name is not known yet is asked about when it is.
    if (entry.naming?.wait(() => queueMicrotask(() => this.#check(entry))) === true) return;
    const denial = this.#denial(entry);
    if (denial === undefined) return;
    entry.access = `deny: ${denial}`;
    entry.abort({ reason: 'denied', detail: denial });
  }

  /** Why it must end; undefined: it stays. */
  #denial(entry: ConnectionEntry): string | undefined {
    const { service: name, judged, start } = entry;
    const delivered =
      start.direction === 'inbound' || (start.direction === 'outbound' && entry.path === 'local');
    if (!delivered || name === undefined || judged === 'requests') return undefined;
    const { access } = this.#deps;
    const service = this.#deps.snapshot().services.get(name);
    const port = service?.instances.find(({ id }) => id === entry.instance)?.address.port;
    const caller = {
      service: start.callerService,
      program: entry.callerProgram,
      node: start.callerNode,
      address: undefined,
    };
    const whole = access.preview({ name, protocol: service?.protocol ?? 'tcp' }, port, caller);
    const verdict =
      whole === 'requests' && judged !== undefined
        ? access.previewRequest(name, port, caller, judged)
        : whole;
    if (verdict === 'requests')
      return `access rules of ${name} speak of requests, and nobody reads this connection`;
    if (verdict?.action !== 'deny') return undefined;
    access.count(name, verdict);
    return verdict.denial;
  }
}
