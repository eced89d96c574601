import type { ConnectionEntry } from './connections.ts';

/** Users and units, by name, whose connections are never touched. */
export interface ExemptNames {
  readonly users: readonly string[];
  readonly units: readonly string[];
}

/**
 * Callers that the allow-list names. Rules keep their connections away from here; but a unit that has just started has a
 * control group that no rule knows yet, and what it opens until then is captured and has to be passed on as it is.
 */
export class ExemptCallers {
  #users: ReadonlySet<string> = new Set();
  #units: ReadonlySet<string> = new Set();

  configure({ users, units }: ExemptNames): void {
    this.#users = new Set(users);
    this.#units = new Set(units);
  }

  /** Whether this connection's caller is one of them; undefined while its name is being looked for and decides it. */
  includes({ caller, naming }: Pick<ConnectionEntry, 'caller' | 'naming'>): boolean | undefined {
    if (this.#units.size === 0 && this.#users.size === 0) return false;
    if (caller?.user !== undefined && this.#users.has(caller.user)) return true;
    if (caller?.unit !== undefined && this.#units.has(caller.unit)) return true;
    return naming !== undefined && this.#units.size > 0 ? undefined : false;
  }
}
