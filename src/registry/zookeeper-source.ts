import { isIP } from 'node:net';
import { createSecureContext, type SecureContext } from 'node:tls';
import type { RegistryConfig } from '../config/schema.ts';
import { Settling } from '../io/settling.ts';
import { MeshError, reasonOf } from '../model/errors.ts';
import { parseServiceName } from '../model/service.ts';
import { hostAndPort } from './host-port.ts';
import { MemberHosts } from './member-hosts.ts';
import { jittered, pausedWhileOpen, retryPause, waited } from './retry-pause.ts';
import { readSecret } from './secret-file.ts';
import { type ServersetRoots, ServersetTree } from './serverset-tree.ts';
import type { Source, SourceContext, SourceListener, SourceStatus } from './source.ts';
import { SourceStateMachine } from './source-state.ts';
import { readTlsFiles } from './tls-files.ts';
import { ZookeeperConnection, type ZookeeperServer } from './zookeeper-connection.ts';
import { ServersetWalk } from './zookeeper-walk.ts';

/** Changes that come within this time are told together, and at the latest after the second. */
const SETTLE_MS = 20;
const LATEST_MS = 200;
/**
 * After so many attempts in a row for each server, one that is behind what was read already is believed as well: an
 * ensemble that was set up anew begins to count at zero.
 */
const ATTEMPTS_BEFORE_ANEW = 4;

export interface ZookeeperSourceOptions {
  readonly servers: readonly ZookeeperServer[];
  readonly roots: ServersetRoots;
  readonly auth: { readonly scheme: string; readonly file: string } | undefined;
  readonly tls:
    | {
        readonly ca: string;
        readonly cert?: string | undefined;
        readonly key?: string | undefined;
        readonly serverName?: string | undefined;
      }
    | undefined;
  /** Milliseconds; the server may grant another time. */
  readonly sessionTimeout: number;
  /** Milliseconds between comparisons of everything: watches stall silently. */
  readonly resyncInterval: number;
  /** Bound on connecting and on one answer, milliseconds. */
  readonly timeout: number;
  readonly context: SourceContext;
  /** First address of a name; default the system's resolver. */
  readonly resolve?: (name: string) => Promise<string>;
}

/** The `zookeeper` registry: serversets, as a tree or by name (docs/registries.md). */
export class ZookeeperSource implements Source {
  readonly name: string;
  readonly #options: ZookeeperSourceOptions;
  readonly #tree: ServersetTree;
  readonly #hosts: MemberHosts;
  readonly #moved = new Set<string>();
  readonly #state: SourceStateMachine;
  readonly #settling = new Settling(SETTLE_MS, LATEST_MS, () => this.#tellChanges());
  readonly #stopped = new AbortController();
  #listener: SourceListener | undefined;
  #following: Promise<void> | undefined;
  /** Failed attempts in a row. */
  #failures = 0;
  #server: number;
  #lastZxid = 0n;
  /** Everything was looked at in this session: what comes now is a change of it. */
  #listed = false;
  #complete = false;

  constructor(options: ZookeeperSourceOptions) {
    this.#options = options;
    const { servers, roots, context } = options;
    this.#hosts = new MemberHosts((host) => {
      this.#moved.add(host);
      this.#settling.touch();
    }, options.resolve);
    this.#tree = new ServersetTree({ ...context, roots, ipOf: (host) => this.#hosts.ipOf(host) });
    const what = roots.kind === 'tree' ? roots.path : '';
    this.name = `zookeeper:${servers.map(({ host, port }) => `${host}:${port}`).join(',')}${what}`;
    this.#state = new SourceStateMachine(this.name, context.log);
    // Many agents that start together do not all ask the first server.
    this.#server = Math.floor(Math.random() * servers.length);
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
    this.#stopped.abort();
    await this.#following;
    this.#hosts.stop();
    this.#settling.clear();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stopped;
    const { servers } = this.#options;
    while (!signal.aborted) {
      try {
        await this.#session(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#state.unreachable(reasonOf(error));
      }
      this.#listed = false;
      this.#server = (this.#server + 1) % servers.length;
      if (++this.#failures > ATTEMPTS_BEFORE_ANEW * servers.length) this.#lastZxid = 0n;
      await waited(retryPause(this.#failures - 1), signal);
    }
  }

  /** One connection, from its opening to its end, which is always an error. */
  async #session(signal: AbortSignal): Promise<void> {
    const { servers, sessionTimeout, resyncInterval, timeout } = this.#options;
    const server = servers[this.#server]!;
    let walk: ServersetWalk | undefined;
    const connection = await ZookeeperConnection.open(
      {
        server,
        secure: await this.#secure(server),
        auth: await this.#auth(),
        sessionTimeout,
        timeout,
        lastZxid: this.#lastZxid,
        onChange: (change, path) => walk?.changed(change, path),
      },
      signal,
    );
    const abort = () => connection.close(new MeshError('registry', 'agent', 'stopped'));
    signal.addEventListener('abort', abort, { once: true });
    try {
      if (signal.aborted) return;
      walk = new ServersetWalk(connection, this.#tree, () => this.#settling.touch());
      for (;;) {
        await Promise.race([walk.compare(), connection.closed]);
        this.#hosts.renew(this.#tree.hosts);
        // Names are waited for once: what was known of them is kept until they are known again.
        if (!this.#listed && !this.#hosts.settled)
          await pausedWhileOpen(timeout, connection.closed, this.#hosts.idle());
        this.#tellAll();
        this.#lastZxid = connection.lastZxid;
        await pausedWhileOpen(jittered(resyncInterval), connection.closed);
      }
    } finally {
      if (connection.lastZxid > this.#lastZxid && this.#listed) this.#lastZxid = connection.lastZxid;
      signal.removeEventListener('abort', abort);
      connection.close(new MeshError('registry', 'agent', 'closed'));
    }
  }

  #tellAll(): void {
    if (this.#listener === undefined) return;
    this.#settling.clear();
    this.#moved.clear();
    this.#listed = true;
    this.#failures = 0;
    this.#complete = this.#tree.complete && this.#hosts.settled;
    this.#listener.update(this.#tree.full(this.#complete));
    this.#confirm();
  }

  #tellChanges(): void {
    if (!this.#listed || this.#listener === undefined) return;
    this.#hosts.want(this.#tree.takeNewHosts());
    this.#tree.moved(this.#moved);
    this.#moved.clear();
    if (!this.#complete && this.#tree.complete && this.#hosts.settled) {
      this.#tellAll();
      return;
    }
    const update = this.#tree.changes();
    if (update !== undefined) this.#listener.update(update);
    this.#confirm();
  }

  #confirm(): void {
    this.#state.confirmed(this.#tree.problems);
  }

  async #auth(): Promise<{ readonly scheme: string; readonly secret: string } | undefined> {
    const { auth } = this.#options;
    return auth === undefined ? undefined : { scheme: auth.scheme, secret: await readSecret(auth.file) };
  }

  /** Read for each connection: files are renewed while we run. */
  async #secure(
    server: ZookeeperServer,
  ): Promise<{ readonly context: SecureContext; readonly serverName: string | undefined } | undefined> {
    const { tls } = this.#options;
    if (tls === undefined) return undefined;
    const context = createSecureContext(await readTlsFiles(tls));
    // RFC 6066 allows no addresses as server names; the certificate is then compared with the address itself.
    const serverName = tls.serverName ?? (isIP(server.host) === 0 ? server.host : undefined);
    return { context, serverName };
  }
}

/** The source that a part of the configuration asks for. */
export function zookeeperSource(
  config: Extract<RegistryConfig, { readonly type: 'zookeeper' }>,
  context: SourceContext,
): ZookeeperSource {
  const services = config.services.map(({ name, path, endpoint }) => ({
    name: parseServiceName(name)!,
    path,
    endpoint: endpoint ?? '',
  }));
  const { path, names, sessionTimeout, resyncInterval, timeout } = config;
  return new ZookeeperSource({
    servers: config.servers.map(hostAndPort),
    roots: services.length > 0 ? { kind: 'services', services } : { kind: 'tree', path, names },
    auth: config.auth,
    tls: config.tls,
    sessionTimeout,
    resyncInterval,
    timeout,
    context,
  });
}
