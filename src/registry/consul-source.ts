import { Settling } from '../io/settling.ts';
import { type Endpoint, endpointKey } from '../model/address.ts';
import { MeshError, reasonOf } from '../model/errors.ts';
import type { MeshNode, NodeName, Service, ServiceName } from '../model/service.ts';
import { type ConsulAnswer, ConsulClient, type ConsulTls } from './consul-client.ts';
import { type ConsulService, readHealth, readNames } from './consul-records.ts';
import { jittered, LONGEST_RETRY_MS, retryPause, waited } from './retry-pause.ts';
import { readSecret } from './secret-file.ts';
import type { Source, SourceContext, SourceListener, SourceStatus } from './source.ts';
import { SourceStateMachine } from './source-state.ts';
import { readTlsFiles } from './tls-files.ts';

/** Services that are watched by blocking queries, each of which holds a connection; an agent takes 200 of one client. */
const MAX_WATCHES = 128;
/** Least time between two answers of one watch: Consul's documentation asks for a bound on their rate. */
const MIN_GAP_MS = 100;
/** Answers that come within this time are told together. */
const QUIET_MS = 10;
const LATEST_MS = 100;
/** An answer of a follower that is older is reported, milliseconds. */
const OLD_MS = 10_000;
/** What the list of services is called among what can fail. */
const LIST = '/v1/catalog/services';

export interface ConsulSourceOptions {
  readonly address: Endpoint;
  readonly datacenter: string | undefined;
  /** Zone of instances that name none; default that of this host. */
  readonly zone: string | undefined;
  readonly tags: readonly string[];
  readonly tokenFile: string | undefined;
  readonly tls:
    | {
        readonly ca: string;
        readonly cert?: string | undefined;
        readonly key?: string | undefined;
        readonly serverName?: string | undefined;
      }
    | undefined;
  readonly stale: boolean;
  /** Every blocking query ends after this time with all that there is; milliseconds. */
  readonly resyncInterval: number;
  readonly timeout: number;
  readonly context: SourceContext;
}

/** The `consul` registry: passing instances of every service of a datacentre (docs/registries.md). */
export class ConsulSource implements Source {
  readonly name: string;
  readonly #options: ConsulSourceOptions;
  readonly #state: SourceStateMachine;
  readonly #stopped = new AbortController();
  readonly #settling = new Settling(QUIET_MS, LATEST_MS, () => this.#tell());
  readonly #known = new Map<ServiceName, ConsulService>();
  readonly #loops = new Map<ServiceName, { readonly abort: AbortController; readonly watched: boolean }>();
  /** Listed, and never answered for. */
  readonly #pending = new Set<ServiceName>();
  /** What cannot be asked now. */
  readonly #failing = new Map<string, string>();
  readonly #touched = new Set<ServiceName>();
  #nodes: ReadonlySet<NodeName> = new Set();
  #listProblems: readonly string[] = [];
  #watches = 0;
  #listed = false;
  #toldAll = false;
  #age = 0;
  #client: Promise<ConsulClient> | undefined;
  #listener: SourceListener | undefined;
  readonly #running = new Set<Promise<void>>();

  constructor(options: ConsulSourceOptions) {
    this.#options = options;
    const { address, datacenter } = options;
    this.name = `consul:${endpointKey(address)}${datacenter === undefined ? '' : `/${datacenter}`}`;
    this.#state = new SourceStateMachine(this.name, options.context.log);
  }

  get status(): SourceStatus {
    return this.#state.status;
  }

  start(listener: SourceListener): void {
    this.#listener = listener;
    this.#state.listen(listener);
    this.#run(LIST, new URLSearchParams(), this.#stopped.signal, true, (answer) => this.#list(answer));
  }

  async stop(): Promise<void> {
    this.#listener = undefined;
    this.#state.listen(undefined);
    this.#settling.clear();
    this.#stopped.abort();
    for (const { abort } of this.#loops.values()) abort.abort();
    await Promise.all(this.#running);
    (await this.#client?.catch(() => undefined))?.close();
  }

  #run(
    path: string,
    query: URLSearchParams,
    signal: AbortSignal,
    watched: boolean,
    take: (answer: ConsulAnswer) => void,
  ): void {
    const running = this.#follow(path, query, signal, watched, take);
    this.#running.add(running);
    void running.then(() => this.#running.delete(running));
  }

  /** Asks one thing again and again: by blocking queries, or, what is not watched, every so often. */
  async #follow(
    path: string,
    query: URLSearchParams,
    signal: AbortSignal,
    watched: boolean,
    take: (answer: ConsulAnswer) => void,
  ): Promise<void> {
    const { resyncInterval } = this.#options;
    let index: number | undefined;
    let failures = 0;
    while (!signal.aborted) {
      let pause: number;
      const asked = performance.now();
      const opening = this.#open();
      try {
        const client = await opening;
        const answer =
          index === undefined
            ? await client.read(path, query, signal)
            : await client.watch(path, query, index, Math.round(jittered(resyncInterval)), signal);
        if (signal.aborted) return;
        take(answer);
        failures = 0;
        this.#failing.delete(path);
        this.#age = answer.lastContact;
        this.#settling.touch();
        // An index that went back is that of another history: from its beginning.
        const back: boolean = index !== undefined && answer.index !== undefined && answer.index < index;
        index = watched && !back ? answer.index : undefined;
        // Without an index there is nothing to wait for: then, as for what is not watched, by the clock.
        const polled = answer.index === undefined || !watched;
        pause = polled ? jittered(resyncInterval) : Math.max(0, MIN_GAP_MS - (performance.now() - asked));
      } catch (error) {
        if (signal.aborted) return;
        index = undefined;
        this.#failed(path, reasonOf(error), opening);
        pause = retryPause(failures++, watched ? undefined : Math.max(LONGEST_RETRY_MS, resyncInterval));
      }
      if (pause > 0) await waited(pause, signal);
    }
  }

  /** The client, made of what the files with token and keys hold since the last failure. */
  #open(): Promise<ConsulClient> {
    this.#client ??= this.#connect();
    return this.#client;
  }

  async #connect(): Promise<ConsulClient> {
    const { tokenFile, address, datacenter, stale, timeout } = this.#options;
    const token = tokenFile === undefined ? undefined : await readSecret(tokenFile);
    return new ConsulClient({ address, tls: await this.#tls(), token, datacenter, stale, timeout });
  }

  async #tls(): Promise<ConsulTls | undefined> {
    const { tls } = this.#options;
    if (tls === undefined) return undefined;
    return {
      ...(await readTlsFiles(tls)),
      ...(tls.serverName === undefined ? {} : { servername: tls.serverName }),
    };
  }

  #failed(path: string, why: string, client: Promise<ConsulClient>): void {
    // The next one reads the files again; connections of this one end with the answers that are still waited for.
    if (this.#client === client) this.#client = undefined;
    this.#failing.set(path, why);
    this.#state.unreachable(why);
  }

  #list(answer: ConsulAnswer): void {
    const list = readNames(answer.body, this.#options.tags);
    if (list === undefined)
      throw new MeshError('registry', 'registry', `${LIST}: the answer is no list of services`);
    this.#listProblems = list.problems;
    this.#listed = true;
    for (const [name, { abort, watched }] of this.#loops) {
      if (list.names.has(name)) continue;
      abort.abort();
      this.#loops.delete(name);
      if (watched) this.#watches--;
      this.#pending.delete(name);
      this.#failing.delete(pathOf(name));
      this.#known.delete(name);
      this.#touched.add(name);
    }
    for (const name of list.names) if (!this.#loops.has(name)) this.#begin(name);
  }

  #begin(name: ServiceName): void {
    const abort = new AbortController();
    const watched = this.#watches < MAX_WATCHES;
    if (watched) this.#watches++;
    this.#loops.set(name, { abort, watched });
    this.#pending.add(name);
    const query = new URLSearchParams({ passing: '1' });
    for (const tag of this.#options.tags) query.append('tag', tag);
    const { context, zone } = this.#options;
    const defaults = { zone: zone ?? context.zone, balance: context.balance };
    this.#run(pathOf(name), query, abort.signal, watched, ({ body }) => {
      const service = readHealth(name, body, defaults);
      if (service === undefined)
        throw new MeshError('registry', 'registry', `${pathOf(name)}: the answer is no list of instances`);
      this.#pending.delete(name);
      this.#known.set(name, service);
      this.#touched.add(name);
    });
  }

  /** Tells what was touched; everything, once everything that is listed has answered. */
  #tell(): void {
    const all = this.#listed && this.#pending.size === 0;
    const nodes = new Map<NodeName, MeshNode>();
    const problems = [...this.#listProblems];
    for (const name of [...this.#known.keys()].sort()) {
      const known = this.#known.get(name)!;
      problems.push(...known.problems);
      for (const node of known.nodes) if (!nodes.has(node.name)) nodes.set(node.name, node);
    }
    if (this.#age > OLD_MS) problems.push(`Consul's answers are older than ${OLD_MS} ms`);
    if (all && !this.#toldAll) {
      this.#toldAll = true;
      const services = Array.from(this.#known.values(), (known) => known.service);
      this.#listener?.update({ kind: 'full', services, nodes: [...nodes.values()], complete: true });
    } else {
      const services: Service[] = [];
      const removedServices: ServiceName[] = [];
      for (const name of this.#touched) {
        const known = this.#known.get(name);
        if (known !== undefined) services.push(known.service);
        else if (!this.#loops.has(name)) removedServices.push(name);
      }
      const removedNodes = [...this.#nodes].filter((name) => !nodes.has(name));
      const update = { services, removedServices, nodes: [...nodes.values()], removedNodes };
      if (services.length + removedServices.length > 0) this.#listener?.update({ kind: 'change', ...update });
    }
    this.#touched.clear();
    this.#nodes = new Set(nodes.keys());
    if (this.#failing.size === 0) {
      if (this.#toldAll) this.#state.confirmed(problems);
      return;
    }
    const [why] = this.#failing.values();
    this.#state.unreachable(why!);
  }
}

function pathOf(name: ServiceName): string {
  return `/v1/health/service/${name}`;
}
