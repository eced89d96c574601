import { lookup } from 'node:dns/promises';
import { type Ip, parseIp } from '../model/address.ts';
import { reasonOf } from '../model/errors.ts';

/** Names that are resolved for one user; those beyond are left out, and told of once. */
const MAX_NAMES = 4096;
/** Addresses that are kept of one name: the first ones in order. */
const MAX_ADDRESSES = 64;
/** Questions under way at once; getaddrinfo has four threads in this process by default, and others want some, too. */
const MAX_AT_ONCE = 2;
/** Share of the interval by which rounds differ, so that hosts that were started together do not ask together. */
const JITTER = 0.2;
/** A name that never had an answer is asked for again this soon, milliseconds; doubles up to the interval. */
const FIRST_RETRY_MS = 1_000;

/** One user's names, and what they resolve to at this host now. */
export interface HostNames {
  /** Replaces the names that this user wants to know. */
  set(names: ReadonlySet<string>): void;
  /** In order; empty while a name never had an answer. */
  addresses(name: string): readonly Ip[];
  /** Why the last question for this name had no answer; undefined when it had one or is not answered yet. */
  problem(name: string): string | undefined;
  /** Ends it; nothing is told any more. */
  close(): void;
}

interface HostNameLog {
  info(fields: object, text: string): void;
  warn(fields: object, text: string): void;
}

export interface HostNameOptions {
  /** Milliseconds between two questions for one name, and the bound on one. */
  readonly resolveInterval: number;
  readonly resolveTimeout: number;
  readonly log: HostNameLog;
  /** Answers that mean nothing to other hosts: loopback, this agent's own virtual addresses. */
  readonly ignored: (ip: Ip) => boolean;
  /** getaddrinfo, so that /etc/hosts and nsswitch.conf count as they do for every program. */
  readonly resolve?: (name: string) => Promise<readonly string[]>;
  /** 0 to 1; Math.random by default. */
  readonly random?: () => number;
}

interface Follower {
  names: ReadonlySet<string>;
  readonly changed: (names: ReadonlySet<string>) => void;
}

interface Entry {
  readonly name: string;
  addresses: readonly Ip[];
  problem: string | undefined;
  /** When it is asked for next, on the clock of performance.now(). */
  dueAt: number;
  retryMs: number;
  asking: boolean;
  /** It had an answer or a problem at least once. */
  asked: boolean;
}

/** Resolves names again and again for all who want to know; the last good answer stays when there is none. */
export class HostNameResolver {
  readonly #followers = new Set<Follower>();
  readonly #entries = new Map<string, Entry>();
  readonly #log: HostNameLog;
  readonly #ignored: (ip: Ip) => boolean;
  readonly #resolve: (name: string) => Promise<readonly string[]>;
  readonly #random: () => number;
  #interval: number;
  #timeout: number;
  #asking = 0;
  readonly #waiting: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;
  #tooMany = false;
  #stopped = false;

  constructor(options: HostNameOptions) {
    this.#interval = options.resolveInterval;
    this.#timeout = options.resolveTimeout;
    this.#log = options.log;
    this.#ignored = options.ignored;
    this.#resolve = options.resolve ?? systemResolve;
    this.#random = options.random ?? Math.random;
  }

  /** Other bounds on time, from the next question of each name. */
  configure(options: Pick<HostNameOptions, 'resolveInterval' | 'resolveTimeout'>): void {
    this.#interval = options.resolveInterval;
    this.#timeout = options.resolveTimeout;
    const latest = performance.now() + this.#interval;
    for (const entry of this.#entries.values()) entry.dueAt = Math.min(entry.dueAt, latest);
    this.#schedule();
  }

  /** `changed` is told which of the names have other addresses (or another problem) than before. */
  follow(changed: (names: ReadonlySet<string>) => void): HostNames {
    const follower: Follower = { names: new Set(), changed };
    this.#followers.add(follower);
    return {
      set: (names) => {
        follower.names = names;
        this.#reconcile();
      },
      addresses: (name) => this.#entries.get(name)?.addresses ?? [],
      problem: (name) => this.#entries.get(name)?.problem,
      close: () => {
        this.#followers.delete(follower);
        this.#reconcile();
      },
    };
  }

  /** Resolves once every name was asked for, or after this time. For programs that look once. */
  async asked(timeoutMs: number): Promise<void> {
    if (this.#askedAll()) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #askedAll(): boolean {
    for (const { asked } of this.#entries.values()) if (!asked) return false;
    return true;
  }

  /** Asks nothing any more. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #reconcile(): void {
    const wanted = new Set<string>();
    let left = 0;
    for (const { names } of this.#followers) {
      for (const name of names) {
        if (wanted.size < MAX_NAMES) wanted.add(name);
        else if (!wanted.has(name)) left++;
      }
    }
    if (left > 0 && !this.#tooMany) {
      this.#log.warn({ most: MAX_NAMES, left }, 'host names: more than may be resolved; some are left out');
    }
    this.#tooMany = left > 0;
    for (const name of this.#entries.keys()) if (!wanted.has(name)) this.#entries.delete(name);
    const now = performance.now();
    for (const name of wanted) {
      if (this.#entries.has(name)) continue;
      this.#entries.set(name, {
        name,
        addresses: [],
        problem: undefined,
        dueAt: now,
        retryMs: FIRST_RETRY_MS,
        asking: false,
        asked: false,
      });
    }
    this.#schedule();
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#stopped || this.#asking >= MAX_AT_ONCE) return;
    let next = Number.POSITIVE_INFINITY;
    for (const entry of this.#entries.values()) if (!entry.asking) next = Math.min(next, entry.dueAt);
    if (next === Number.POSITIVE_INFINITY) return;
    this.#timer = setTimeout(() => this.#askDue(), Math.max(0, next - performance.now()));
    this.#timer.unref();
  }

  #askDue(): void {
    const now = performance.now();
    for (const entry of this.#entries.values()) {
      if (this.#asking >= MAX_AT_ONCE) break;
      if (!entry.asking && entry.dueAt <= now) void this.#ask(entry);
    }
    this.#schedule();
  }

  async #ask(entry: Entry): Promise<void> {
    entry.asking = true;
    this.#asking++;
    // A question that hangs keeps its place until getaddrinfo gives up: the next ones wait, and nothing piles up.
    const answer = this.#resolve(entry.name).finally(() => {
      entry.asking = false;
      this.#asking--;
      this.#schedule();
    });
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${this.#timeout} ms`)), this.#timeout);
      timer.unref();
    });
    try {
      this.#answered(
        entry,
        (await Promise.race([answer, late])).flatMap((text) => parseIp(text) ?? []),
      );
    } catch (error) {
      this.#failed(entry, error);
    } finally {
      clearTimeout(timer);
      entry.asked = true;
      if (this.#askedAll()) for (const asked of this.#waiting.splice(0)) asked();
      answer.catch(() => undefined); // it was late, and that was told
    }
    this.#schedule();
  }

  #answered(entry: Entry, said: readonly Ip[]): void {
    const addresses = [...new Set(said)].filter((ip) => !this.#ignored(ip)).sort();
    if (addresses.length > MAX_ADDRESSES) {
      const { name } = entry;
      this.#log.warn({ name, most: MAX_ADDRESSES, had: addresses.length }, 'host names: too many addresses');
      addresses.length = MAX_ADDRESSES;
    }
    entry.dueAt = performance.now() + this.#interval * (1 + JITTER * (this.#random() - 0.5));
    entry.retryMs = FIRST_RETRY_MS;
    const same =
      entry.addresses.length === addresses.length && addresses.every((ip, i) => entry.addresses[i] === ip);
    if (same && entry.problem === undefined) return;
    if (entry.problem !== undefined) this.#log.info({ name: entry.name }, 'host names: answered again');
    entry.problem = undefined;
    if (!same) this.#log.info({ name: entry.name, addresses }, 'host names: resolved');
    entry.addresses = addresses;
    this.#tell(entry);
  }

  #failed(entry: Entry, error: unknown): void {
    const reason = reasonOf(error);
    const wait = entry.addresses.length > 0 ? this.#interval : Math.min(entry.retryMs, this.#interval);
    entry.retryMs *= 2;
    entry.dueAt = performance.now() + wait * (1 + JITTER * (this.#random() - 0.5));
    // Once for each new reason: a name that is wrong stays wrong for a long time.
    if (entry.problem === reason) return;
    entry.problem = reason;
    const kept = entry.addresses.length;
    this.#log.warn({ name: entry.name, reason, kept }, 'host names: not resolved; the last answer stays');
    this.#tell(entry);
  }

  #tell({ name }: Entry): void {
    if (this.#stopped || !this.#entries.has(name)) return;
    const changed = new Set([name]);
    for (const follower of this.#followers) if (follower.names.has(name)) follower.changed(changed);
  }
}

async function systemResolve(name: string): Promise<readonly string[]> {
  const answers = await lookup(name, { all: true, order: 'verbatim' });
  return answers.map(({ address }) => address);
}
