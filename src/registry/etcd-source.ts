import { Settling } from '../io/settling.ts';
import { MeshError, reasonOf } from '../model/errors.ts';
import { type Composed, Composer, nothingComposed, updatesBetween } from './composition.ts';
import type { RangeAnswer, WatchAnswer } from './etcd-answers.ts';
import { AnswerTooLarge, EtcdClient } from './etcd-client.ts';
import { hostAndPort } from './host-port.ts';
import { KeyedCatalogue } from './keyed-catalogue.ts';
import { jittered, retryPause, waited } from './retry-pause.ts';
import { readSecret } from './secret-file.ts';
import type { Source, SourceContext, SourceListener, SourceStatus } from './source.ts';
import { SourceStateMachine } from './source-state.ts';
import { readTlsFiles } from './tls-files.ts';

/** What lasted so long was no failure: the next pause is the first one again. */
const STEADY_MS = 10_000;
/** Changes that come within this time are told together, and at the latest after the second. */
const SETTLE_MS = 20;
const LATEST_MS = 200;
/** Keys of one answer; fewer are asked for when their values are large. */
const PAGE_KEYS = 500;
/** Bytes of all keys and values of one listing. */
const MAX_LIST_BYTES = 512 * 1024 * 1024;
/** A compaction this soon after a listing is a failure; otherwise everything is listed again at once. */
const COMPACTION_GRACE_MS = 1000;

export interface EtcdSourceOptions {
  /** `HOST:PORT` each. */
  readonly endpoints: readonly string[];
  /** Begins with / and does not end with it. */
  readonly prefix: string;
  readonly user: string | undefined;
  readonly passwordFile: string | undefined;
  /** Paths of PEM files. */
  readonly tls:
    | { readonly ca: string; readonly cert?: string | undefined; readonly key?: string | undefined }
    | undefined;
  /** Milliseconds between comparisons of everything: watches stall silently. */
  readonly resyncInterval: number;
  /** Bound on one answer, milliseconds. */
  readonly timeout: number;
  readonly context: SourceContext;
}

/** The `etcd` registry: services, instances and nodes as keys with JSON values (docs/registries.md). */
export class EtcdSource implements Source {
  readonly name: string;
  readonly #options: EtcdSourceOptions;
  readonly #prefix: string;
  readonly #range: { readonly key: Buffer; readonly end: Buffer };
  readonly #keys = new KeyedCatalogue();
  readonly #composer: Composer;
  readonly #state: SourceStateMachine;
  readonly #settling = new Settling(SETTLE_MS, LATEST_MS, () => this.#tellChanges());
  readonly #stopped = new AbortController();
  #listener: SourceListener | undefined;
  #following: Promise<void> | undefined;
  /** Up to where every change is known; undefined: everything has to be listed. */
  #revision: bigint | undefined;
  /** The store that was read last, and its revision then. */
  #history: { readonly cluster: string; readonly revision: bigint } | undefined;
  #listedAt = Number.NEGATIVE_INFINITY;
  #listAgainAt = 0;
  /** The endpoint that is asked now gave a whole answer. */
  #answered = false;
  /** There was a key at some time. */
  #sawContent = false;
  /** What was told last. */
  #composed: Composed = nothingComposed;
  /** Whether the full update that was told last was complete; undefined before the first. */
  #complete: boolean | undefined;
  #telling: Promise<void> = Promise.resolve();
  #nextTelling: Promise<void> | undefined;

  constructor(options: EtcdSourceOptions) {
    this.#options = options;
    this.#prefix = `${options.prefix}/`;
    // 0 is the character after /: all keys that begin with the prefix and / are in between.
    this.#range = { key: Buffer.from(this.#prefix), end: Buffer.from(`${options.prefix}0`) };
    this.#composer = new Composer(options.context);
    this.name = `etcd:${options.endpoints.join(',')}${options.prefix}`;
    this.#state = new SourceStateMachine(this.name, options.context.log);
  }

  get status(): SourceStatus {
    return this.#state.status;
  }

  start(listener: SourceListener): void {
    this.#listener = listener;
    this.#state.listen(listener);
    this.#following = this.#follow();
  }

  async stop(): Promise<void> {
    this.#listener = undefined;
    this.#state.listen(undefined);
    this.#stopped.abort(new MeshError('registry', 'agent', 'stopped'));
    this.#settling.clear();
    await this.#following;
    this.#settling.clear();
    await this.#telling;
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stopped;
    const { endpoints } = this.#options;
    // Many agents begin at different servers.
    let turn = Math.floor(Math.random() * endpoints.length);
    /** Why the endpoints failed since the last answer. */
    const reasons: string[] = [];
    /** Failed sessions since it last went well for a while. */
    let failures = 0;
    while (!signal.aborted) {
      const endpoint = endpoints[turn++ % endpoints.length]!;
      const began = performance.now();
      try {
        await this.#session(endpoint, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (this.#answered) {
          reasons.length = 0;
          if (performance.now() - began >= STEADY_MS) failures = 0;
          this.#answered = false;
        }
        reasons.push(`${endpoint}: ${reasonOf(error)}`);
      }
      // One server of a cluster may fail: unreachable is what none of them answers for.
      if (reasons.length >= endpoints.length) {
        this.#state.unreachable(reasons.slice(-endpoints.length).join('; '));
        reasons.splice(0, reasons.length - endpoints.length);
      }
      if (++failures % endpoints.length !== 0) continue;
      const rounds = failures / endpoints.length - 1;
      await waited(retryPause(rounds), signal);
    }
  }

  /** What one endpoint says, until it fails. */
  async #session(endpoint: string, signal: AbortSignal): Promise<never> {
    const client = await this.#open(endpoint);
    try {
      for (;;) {
        if (this.#revision === undefined || performance.now() >= this.#listAgainAt)
          await this.#list(client, signal);
        await this.#watch(client, signal, Math.max(1, this.#listAgainAt - performance.now()));
      }
    } finally {
      client.close();
    }
  }

  /** Files are read for each session: they are renewed while we run. */
  async #open(endpoint: string): Promise<EtcdClient> {
    const { user, passwordFile, tls: files, timeout } = this.#options;
    const password = passwordFile === undefined ? undefined : await readSecret(passwordFile);
    const tls = files && (await readTlsFiles(files));
    const credentials = user === undefined || password === undefined ? undefined : { user, password };
    return new EtcdClient({ ...hostAndPort(endpoint), tls, credentials, timeout });
  }

  /** Reads everything at one revision, page by page, and tells it. */
  async #list(client: EtcdClient, signal: AbortSignal): Promise<void> {
    const { end } = this.#range;
    let { key } = this.#range;
    let limit = PAGE_KEYS;
    let keysOnly = false;
    let revision: bigint | undefined;
    let bytes = 0;
    for (;;) {
      let page: RangeAnswer;
      try {
        page = await client.range({ key, end, limit, revision, keysOnly }, signal);
      } catch (error) {
        if (!(error instanceof AnswerTooLarge) || keysOnly) throw error;
        // A single value larger than any answer is a problem of its key, of which only the name is asked then.
        if (limit === 1) keysOnly = true;
        else limit = Math.ceil(limit / 4);
        continue;
      }
      if (revision === undefined) {
        this.#begin(page);
        revision = page.revision;
      }
      for (const { key: next, revision: version, value } of page.values) {
        if (Buffer.compare(next, key) < 0 || Buffer.compare(next, end) >= 0) throw outOfOrder();
        key = Buffer.concat([next, Buffer.alloc(1)]);
        bytes += next.length + value.length;
        this.#keys.put(this.#below(next), String(version), keysOnly ? undefined : value);
      }
      if (bytes > MAX_LIST_BYTES) {
        const text = `etcd: more than ${MAX_LIST_BYTES} bytes below ${this.#prefix}`;
        throw new MeshError('overload', 'registry', text);
      }
      if (!page.more) break;
      if (page.values.length === 0) throw outOfOrder();
      keysOnly = false;
      limit = Math.min(PAGE_KEYS, limit * 2);
    }
    this.#keys.endList();
    this.#revision = revision;
    this.#listedAt = performance.now();
    this.#listAgainAt = this.#listedAt + jittered(this.#options.resyncInterval);
    this.#answered = true;
    await this.#tell();
  }

  /** The first page of a listing came. */
  #begin({ cluster, revision, values, more }: RangeAnswer): void {
    const before = this.#history;
    const anew = before !== undefined && (before.cluster !== cluster || revision < before.revision);
    if (anew && values.length === 0 && !more && !this.#keys.empty) {
      // What was deleted is deleted at a later revision of the same store: this is one that lost its data.
      throw new MeshError('registry', 'registry', 'the etcd store is new and empty; was its data lost?');
    }
    this.#history = { cluster, revision };
    this.#keys.beginList(anew);
  }

  /** Follows the changes after the known revision, for a time or until they are compacted. */
  async #watch(client: EtcdClient, signal: AbortSignal, time: number): Promise<void> {
    const due = new AbortController();
    const timer = setTimeout(() => due.abort(), time);
    try {
      const from = this.#revision! + 1n;
      const answers = client.watch({ ...this.#range, from }, AbortSignal.any([signal, due.signal]));
      for await (const answer of answers) if (!this.#hear(answer)) return;
    } catch (error) {
      if (!due.signal.aborted || signal.aborted) throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** False when the watch is of no use any more, and everything has to be listed. */
  #hear(answer: WatchAnswer): boolean {
    const known = this.#revision ?? 0n;
    switch (answer.kind) {
      case 'created':
        // Another store, or one that was restored: the changes that are waited for would never come.
        if (answer.revision >= known && answer.cluster === this.#history?.cluster) break;
        this.#revision = undefined;
        return false;
      case 'compacted':
        this.#revision = undefined;
        if (performance.now() - this.#listedAt >= COMPACTION_GRACE_MS) return false;
        throw new MeshError('registry', 'registry', 'etcd: compacted right after it was listed');
      case 'progress':
        if (answer.revision > known) this.#revision = answer.revision;
        break;
      case 'events':
        for (const event of answer.events) {
          const key = this.#below(event.key);
          if (event.removed) this.#keys.remove(key);
          else this.#keys.put(key, String(event.revision), event.value);
        }
        // The rest of a partial one has the last revision as well.
        if (!answer.partial) this.#revision = answer.events.at(-1)!.revision;
        this.#settling.touch();
        return true;
    }
    if (this.#history !== undefined && answer.revision > this.#history.revision)
      this.#history = { ...this.#history, revision: answer.revision };
    this.#answered = true;
    this.#confirm();
    return true;
  }

  #below(key: Buffer): string {
    return key.toString().slice(this.#prefix.length);
  }

  #tellChanges(): void {
    this.#tell().catch((error: unknown) => {
      if (this.#listener !== undefined) this.#state.unreachable(reasonOf(error));
    });
  }

  /** Tells what is different now; one telling waits at most while another one goes on. */
  #tell(): Promise<void> {
    this.#nextTelling ??= this.#telling.then(() => {
      this.#nextTelling = undefined;
      return this.#compose();
    });
    this.#telling = this.#nextTelling.catch(() => undefined);
    return this.#nextTelling;
  }

  async #compose(): Promise<void> {
    if (this.#listener === undefined) return;
    this.#sawContent ||= !this.#keys.empty;
    // A prefix that never had a key is what a wrong one looks like.
    const complete = this.#keys.complete && this.#sawContent;
    const before = this.#composed;
    const composed = await this.#composer.compose(new Map([[this.name, this.#keys.document()]]));
    for await (const update of updatesBetween(before, composed)) this.#listener?.update(update);
    this.#composed = composed;
    if (complete !== this.#complete || before.beyond || composed.beyond) {
      const services = [...composed.services.values()];
      const nodes = [...composed.nodes.values()];
      this.#listener?.update({ kind: 'full', services, nodes, complete });
      this.#complete = complete;
    }
    this.#confirm();
  }

  #confirm(): void {
    // What was heard before the connection was lost may be told after it: that confirms nothing.
    if (this.#listener === undefined || !this.#answered) return;
    const problems = [...this.#keys.problems, ...this.#composed.problems];
    if (!this.#sawContent) problems.push(`no key below ${this.#prefix}; is the prefix right?`);
    this.#state.confirmed(problems);
  }
}

function outOfOrder(): MeshError {
  return new MeshError('protocol', 'registry', 'etcd: keys are listed out of order');
}
