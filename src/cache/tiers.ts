import { MeshError } from '../model/errors.ts';
import type { FileTier } from './file-tier.ts';
import { type FreshnessOptions, freshness, MemoryTier, type Remembered } from './memory-tier.ts';

/** Questions that are with the registries at once; a further one is not asked. */
const MAX_IN_FLIGHT = 1024;

/** One remembered answer as it is kept on disk. "Nobody knows" is not kept. */
export interface StoredAnswer<V> {
  readonly key: string;
  readonly at: number;
  readonly value: V;
}

interface TiersOptions<Q, V> extends FreshnessOptions {
  /** Answers kept in memory, and on disk. */
  readonly memoryEntries: number;
  /** Bound on one question to the registries, milliseconds. */
  readonly lookupTimeout: number;
  /** Equal questions have equal keys. */
  readonly keyOf: (question: Q) => string;
  /** Asks the registries: undefined when they answered and nobody knows; rejects when they cannot be asked. */
  readonly ask: (question: Q, signal: AbortSignal) => Promise<V | undefined>;
  /** Where answers survive a restart; without it they do not. */
  readonly file?: FileTier<StoredAnswer<V>>;
}

/** An answer, who gave it, and how old it is. */
export interface Resolution<V> {
  /** Undefined: the registries answered that nobody knows. */
  readonly value: V | undefined;
  readonly tier: 'memory' | 'file' | 'registry';
  /** Milliseconds since a registry gave it. */
  readonly age: number;
  /** The registries could not be asked, and this is too old for ordinary use: better than nothing. */
  readonly expired: boolean;
}

/**
 * On-demand answers through memory, then file, then registry. A fresh answer is used as it is; a stale one at once,
 * while one background question renews it; equal questions at the same time are asked once; a registry that fails
 * never takes an answer away.
 */
export class Tiers<Q, V> {
  readonly #options: TiersOptions<Q, V>;
  readonly #memory: MemoryTier<V>;
  /** What the file held at the start and memory has not taken over yet. */
  readonly #file: MemoryTier<V>;
  readonly #inFlight = new Map<string, Promise<Remembered<V>>>();

  constructor(options: TiersOptions<Q, V>) {
    this.#options = options;
    this.#memory = new MemoryTier({ entries: options.memoryEntries });
    this.#file = new MemoryTier({ entries: options.memoryEntries });
  }

  /** Reads the file tier. Never rejects: what cannot be read is not there. */
  async load(): Promise<void> {
    const loaded = await this.#options.file?.load();
    for (const { key, at, value } of loaded?.records ?? []) this.#file.set(key, { value, at });
  }

  /**
   * The answer to a question. Rejects with a MeshError (`registry`, `timeout`, `overload`) only when no tier has ever
   * known one and the registries cannot be asked.
   */
  async resolve(question: Q): Promise<Resolution<V>> {
    const key = this.#options.keyOf(question);
    const now = Date.now();
    const known = this.#known(key);
    const state = known === undefined ? 'expired' : freshness(known.answer, this.#options, now);
    if (known !== undefined && state !== 'expired') {
      // The background question may fail: the answer stays, and the next caller asks again.
      if (state === 'stale') this.#ask(key, question).catch(() => undefined);
      return resolution(known.answer, known.tier, now, false);
    }
    try {
      const answer = await this.#ask(key, question);
      return resolution(answer, 'registry', answer.at, false);
    } catch (error) {
      if (known?.answer.value !== undefined) return resolution(known.answer, known.tier, Date.now(), true);
      throw error;
    }
  }

  #known(key: string): { readonly answer: Remembered<V>; readonly tier: 'memory' | 'file' } | undefined {
    const remembered = this.#memory.get(key);
    if (remembered !== undefined) return { answer: remembered, tier: 'memory' };
    const stored = this.#file.get(key);
    return stored === undefined ? undefined : { answer: stored, tier: 'file' };
  }

  /** Asks the registries, once for all who ask the same at the same time. */
  #ask(key: string, question: Q): Promise<Remembered<V>> {
    const running = this.#inFlight.get(key);
    if (running !== undefined) return running;
    if (this.#inFlight.size >= MAX_IN_FLIGHT) {
      const text = `${MAX_IN_FLIGHT} questions are with the registries already`;
      return Promise.reject(new MeshError('overload', 'agent', text, { retry: 'safe' }));
    }
    const asked = this.#askRegistry(question)
      .then((value) => {
        const answer = { value, at: Date.now() };
        this.#memory.set(key, answer);
        this.#options.file?.changed(() => this.#stored());
        return answer;
      })
      .finally(() => this.#inFlight.delete(key));
    this.#inFlight.set(key, asked);
    return asked;
  }

  async #askRegistry(question: Q): Promise<V | undefined> {
    const { ask, lookupTimeout } = this.#options;
    const bound = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    // An adapter that ignores its signal is bounded too.
    const expiry = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        const text = `no registry answered within ${lookupTimeout} ms`;
        reject(new MeshError('timeout', 'registry', text, { retry: 'safe' }));
        bound.abort();
      }, lookupTimeout);
    });
    try {
      return await Promise.race([ask(question, bound.signal), expiry]);
    } catch (error) {
      if (error instanceof MeshError) throw error;
      throw new MeshError('registry', 'registry', 'a registry could not be asked', {
        retry: 'safe',
        cause: error,
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** What goes to disk: memory, and what the file held that nobody asked for since; bounded as both are. */
  *#stored(): IterableIterator<StoredAnswer<V>> {
    let left = this.#options.memoryEntries;
    const written = new Set<string>();
    for (const tier of [this.#memory, this.#file]) {
      for (const [key, { value, at }] of tier.entries()) {
        if (written.has(key) || left === 0) continue;
        written.add(key);
        if (value === undefined) continue;
        left--;
        yield { key, at, value };
      }
    }
  }
}

function resolution<V>(
  answer: Remembered<V>,
  tier: Resolution<V>['tier'],
  now: number,
  expired: boolean,
): Resolution<V> {
  return { value: answer.value, tier, age: Math.max(0, now - answer.at), expired };
}
