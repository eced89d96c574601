import { lookup } from 'node:dns/promises';
import { type Ip, parseIp } from '../model/address.ts';

/** Questions under way at once; getaddrinfo has four threads in a process, and files want one, too. */
const MAX_AT_ONCE = 2;
/** Names that are kept for one registry; members at further ones are left out. */
const MAX_NAMES = 10_000;

interface Known {
  /** The last good answer; it stays while there is no other. */
  ip: Ip | undefined;
  /** The system answered: with an address, or that there is no such name. */
  answered: boolean;
}

/**
 * Addresses of the names that members of a registry give for their hosts, by the system's resolver. Asked in the
 * background, few at a time, so that a resolver that hangs delays nothing but names.
 */
export class MemberHosts {
  readonly #names = new Map<string, Known>();
  readonly #queue = new Set<string>();
  readonly #resolve: (name: string) => Promise<string>;
  readonly #changed: (name: string) => void;
  readonly #asking = new Set<string>();
  #idle: (() => void)[] = [];

  /** `changed` is called for each name whose address is another one than before. */
  constructor(changed: (name: string) => void, resolve = systemResolve) {
    this.#changed = changed;
    this.#resolve = resolve;
  }

  /** True when each name that is known was answered once. */
  get settled(): boolean {
    for (const { answered } of this.#names.values()) if (!answered) return false;
    return true;
  }

  /** The address of a host; undefined while it is not known. */
  ipOf(host: string): Ip | undefined {
    return parseIp(host) ?? this.#names.get(host)?.ip;
  }

  /** Asks for names that were not asked for yet. */
  want(hosts: Iterable<string>): void {
    for (const host of hosts) {
      if (
        this.#names.has(host) ||
        this.#asking.has(host) ||
        this.#names.size >= MAX_NAMES ||
        parseIp(host) !== undefined
      )
        continue;
      this.#names.set(host, { ip: undefined, answered: false });
      this.#queue.add(host);
    }
    this.#ask();
  }

  /** Asks for all of these again, and forgets all others. */
  renew(hosts: ReadonlySet<string>): void {
    for (const name of [...this.#names.keys()]) {
      if (!hosts.has(name)) this.#names.delete(name);
      // One that hangs must not take the places of others.
      else if (!this.#asking.has(name)) this.#queue.add(name);
    }
    this.want(hosts);
  }

  /** Resolves when nothing is being asked. */
  idle(): Promise<void> {
    if (this.#asking.size === 0 && this.#queue.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Nothing more is asked; an answer under way is not waited for and says nothing. */
  stop(): void {
    this.#queue.clear();
    this.#names.clear();
  }

  #ask(): void {
    for (const name of this.#queue) {
      if (this.#asking.size >= MAX_AT_ONCE) return;
      this.#queue.delete(name);
      this.#asking.add(name);
      void this.#one(name);
    }
  }

  async #one(name: string): Promise<void> {
    let ip: Ip | undefined;
    let answered = true;
    try {
      ip = parseIp(await this.#resolve(name));
    } catch (error) {
      answered = (error as NodeJS.ErrnoException).code === 'ENOTFOUND';
    }
    this.#asking.delete(name);
    const known = this.#names.get(name);
    if (known !== undefined && answered) {
      known.answered = true;
      // "No such name" is told for a moment also by resolvers that are being restarted: the last address stays.
      if (ip !== undefined && ip !== known.ip) {
        known.ip = ip;
        this.#changed(name);
      }
    }
    this.#ask();
    if (this.#asking.size > 0 || this.#queue.size > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}

/** getaddrinfo, so that /etc/hosts and nsswitch.conf count as they do for every program; its first answer. */
async function systemResolve(name: string): Promise<string> {
  return (await lookup(name)).address;
}
