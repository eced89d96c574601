import { type Caller, callerText } from '../model/caller.ts';

/** A caller with its text, made once for each caller and shared by its connections. */
export interface Identity {
  readonly caller: Caller;
  /** {@link callerText} of it. */
  readonly text: string;
}

export function identityOf(caller: Caller): Identity {
  return { caller, text: callerText(caller) };
}

export const unknownIdentity: Identity = identityOf({});

/** Most connections, live or over, that wait for one name. */
const MOST_WAITING = 8_192;

/** A name that is being looked for. It is settled exactly once, after a bounded time. */
export class Naming {
  #waiting: ((identity: Identity) => void)[] = [];
  #settled: Identity | undefined;
  /** What is said of the caller until then, and in the end if no name is found. */
  readonly meanwhile: Identity;
  /** What its connections are counted as until then: nobody else's are. */
  readonly countedAs: string;

  constructor(meanwhile: Identity, countedAs: string) {
    this.meanwhile = meanwhile;
    this.countedAs = countedAs;
  }

  /** Calls `listener` once: when the name is there, or at once when it is. False, and never, when too many wait already. */
  wait(listener: (identity: Identity) => void): boolean {
    if (this.#settled !== undefined) listener(this.#settled);
    else if (this.#waiting.length >= MOST_WAITING) return false;
    else this.#waiting.push(listener);
    return true;
  }

  settle(identity: Identity): void {
    if (this.#settled !== undefined) return;
    this.#settled = identity;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const listener of waiting) listener(identity);
  }
}

/** Most names that are looked for at once. */
const MOST_NAMINGS = 64;

interface Sought {
  readonly naming: Naming;
  /** When it was asked for, on the clock of `performance.now()`. */
  readonly since: number;
  readonly timer: NodeJS.Timeout;
}

/** The names that are being looked for, by key; each is given up after its time. */
export class Namings<K> {
  readonly #sought = new Map<K, Sought>();
  readonly #timeoutMs: () => number;
  readonly #most: number;

  constructor(timeoutMs: () => number, most = MOST_NAMINGS) {
    this.#timeoutMs = timeoutMs;
    this.#most = most;
  }

  get(key: K): Naming | undefined {
    return this.#sought.get(key)?.naming;
  }

  /** Begins to look for a name; undefined when too many are looked for already. */
  begin(key: K, meanwhile: Identity, countedAs: string): Naming | undefined {
    if (this.#sought.size >= this.#most) return undefined;
    const naming = new Naming(meanwhile, countedAs);
    const timer = setTimeout(() => this.settle(key, meanwhile), this.#timeoutMs());
    this.#sought.set(key, { naming, since: performance.now(), timer });
    return naming;
  }

  settle(key: K, identity: Identity): void {
    const sought = this.#sought.get(key);
    if (sought === undefined) return;
    clearTimeout(sought.timer);
    this.#sought.delete(key);
    sought.naming.settle(identity);
  }

  /** What is looked for, with the time at which it was asked for. */
  entries(): readonly (readonly [key: K, since: number])[] {
    return Array.from(this.#sought, ([key, { since }]) => [key, since] as const);
  }

  /** Gives all of them up. */
  close(): void {
    for (const [key, { naming }] of this.#sought) this.settle(key, naming.meanwhile);
  }
}
