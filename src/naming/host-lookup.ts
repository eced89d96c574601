import { lookup } from 'node:dns/promises';
import { type Ip, parseIp } from '../model/address.ts';
import { MeshError, reasonOf } from '../model/errors.ts';

/** Questions under way at once; getaddrinfo has four threads in a process, and files want one, too. */
const MAX_AT_ONCE = 3;
/** Names that wait for their turn; more are refused at once. */
const MAX_WAITING = 256;
/** Answers that are kept, the oldest given up first. */
const MAX_KEPT = 1024;
/** How long an answer is kept, and "no such name", in ms: getaddrinfo does not tell how long they hold. */
const KEPT_MS = 10_000;
const NONE_KEPT_MS = 1_000;

interface Kept {
  readonly answer: Promise<readonly Ip[]>;
  /** On the clock of `now`; infinity while it is being asked for. */
  until: number;
}

export interface HostLookupOptions {
  /** Bound on one answer, the wait for its turn included; ms. */
  timeoutMs(): number;
  /** getaddrinfo, so that /etc/hosts and nsswitch.conf count as they do for every program. */
  readonly resolve?: (name: string) => Promise<readonly string[]>;
  readonly now?: () => number;
}

/** Resolves names that somebody asks for once in a while; few at a time, and each once for all who ask together. */
export class HostLookup {
  readonly #options: HostLookupOptions;
  readonly #resolve: (name: string) => Promise<readonly string[]>;
  readonly #now: () => number;
  readonly #kept = new Map<string, Kept>();
  readonly #waiting: (() => void)[] = [];
  #asking = 0;

  constructor(options: HostLookupOptions) {
    this.#options = options;
    this.#resolve = options.resolve ?? systemResolve;
    this.#now = options.now ?? (() => performance.now());
  }

  /** Addresses of this name, in the order in which to try them. Rejects with a MeshError `no-service`, `timeout` or `overload`. */
  addresses(name: string): Promise<readonly Ip[]> {
    const known = this.#kept.get(name);
    if (known !== undefined && known.until > this.#now()) return known.answer;
    if (this.#asking >= MAX_AT_ONCE && this.#waiting.length >= MAX_WAITING) {
      return Promise.reject(
        new MeshError('overload', 'agent', 'too many names are being resolved', { retry: 'safe' }),
      );
    }
    const kept: Kept = { answer: this.#bounded(name), until: Number.POSITIVE_INFINITY };
    this.#kept.delete(name);
    this.#kept.set(name, kept);
    if (this.#kept.size > MAX_KEPT) this.#kept.delete(this.#kept.keys().next().value!);
    const keptFor = (ms: number) => () => {
      kept.until = this.#now() + ms;
    };
    kept.answer.then(keptFor(KEPT_MS), keptFor(NONE_KEPT_MS));
    return kept.answer;
  }

  async #bounded(name: string): Promise<readonly Ip[]> {
    const ms = this.#options.timeoutMs();
    let timer: NodeJS.Timeout | undefined;
    let late = false;
    const expired = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        late = true;
        const text = `${name} was not resolved within ${ms} ms`;
        reject(new MeshError('timeout', 'agent', text, { retry: 'safe' }));
      }, ms);
    });
    try {
      return await Promise.race([this.#asked(name, () => late), expired]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** A question that hangs keeps its place until getaddrinfo gives up: the next ones wait, and nothing piles up. */
  async #asked(name: string, isLate: () => boolean): Promise<readonly Ip[]> {
    if (this.#asking >= MAX_AT_ONCE) await new Promise<void>((turn) => this.#waiting.push(turn));
    else this.#asking++;
    try {
      if (isLate()) return [];
      return (await this.#resolve(name)).flatMap((text) => parseIp(text) ?? []);
    } catch (error) {
      throw new MeshError('no-service', 'caller', `${name}: ${reasonOf(error)}`, {
        ...{ retry: 'safe', cause: error },
      });
    } finally {
      // The place goes on to the next one who waits.
      const next = this.#waiting.shift();
      if (next === undefined) this.#asking--;
      else next();
    }
  }
}

async function systemResolve(name: string): Promise<readonly string[]> {
  const answers = await lookup(name, { all: true, order: 'verbatim' });
  return answers.map(({ address }) => address);
}
