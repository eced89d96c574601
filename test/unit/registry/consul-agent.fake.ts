import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type ServerOptions } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';

export interface FakeEntry {
  readonly name: string;
  readonly ip: string;
  readonly port: number;
  readonly tags?: readonly string[];
  readonly meta?: Readonly<Record<string, string>>;
  readonly nodeMeta?: Readonly<Record<string, string>>;
  readonly nodeAddress?: string;
  readonly weight?: number;
  readonly failing?: boolean;
}

/**
 * The HTTP API of a Consul agent as it is documented, as far as a reader needs it: the list of services, their passing
 * instances, blocking queries with an index of everything.
 */
export class FakeConsulAgent {
  entries: readonly FakeEntry[] = [];
  index = 10;
  port = 0;
  token: string | undefined;
  tls: ServerOptions | undefined;
  /** Nothing is answered any more. */
  silent = false;
  /** Blocking queries are answered at the end of their wait only. */
  stalled = false;
  leader = true;
  lastContact = 0;
  /** Status of the answers to paths that match. */
  refuse: { readonly path: RegExp; readonly status: number } | undefined;
  /** Sent instead of every answer. */
  bend: (body: string) => string = (body) => body;
  readonly asked: URL[] = [];
  #server: Server | undefined;
  #wake: (() => void)[] = [];

  async listen(): Promise<void> {
    const serve = (request: IncomingMessage, response: ServerResponse) => void this.#serve(request, response);
    const server = this.tls === undefined ? createServer(serve) : createTlsServer(this.tls, serve);
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.port, '127.0.0.1', resolve));
    this.port = (server.address() as { port: number }).port;
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    server?.closeAllConnections();
    if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  }

  /** Sets everything, and answers those who wait. */
  become(entries: readonly FakeEntry[]): void {
    this.entries = entries;
    this.index++;
    this.wake();
  }

  wake(): void {
    if (this.stalled) return;
    for (const wake of this.#wake.splice(0)) wake();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://consul');
    this.asked.push(url);
    const index = Number(url.searchParams.get('index') ?? 0);
    if (index > 0 && index === this.index) {
      const over = new AbortController();
      const wait = delay(Number.parseInt(url.searchParams.get('wait') ?? '0', 10), undefined, over);
      response.on('close', () => over.abort());
      await Promise.race([
        wait.catch(() => undefined),
        new Promise<void>((resolve) => this.#wake.push(resolve)),
      ]);
      over.abort();
    }
    if (this.silent) return;
    const refused = this.refuse?.path.test(url.pathname) === true ? this.refuse.status : undefined;
    const status = this.token === request.headers['x-consul-token'] ? (refused ?? 200) : 403;
    response.writeHead(status, {
      'content-type': 'application/json',
      'x-consul-index': String(this.index),
      'x-consul-knownleader': String(this.leader),
      'x-consul-lastcontact': String(this.lastContact),
    });
    const body = url.pathname === '/v1/catalog/services' ? this.#names() : this.#health(url);
    response.end(status === 200 ? this.bend(JSON.stringify(body)) : 'Permission denied');
  }

  #names(): Record<string, string[]> {
    const names: Record<string, string[]> = { consul: [] };
    for (const { name, tags = [] } of this.entries) names[name] = [...(names[name] ?? []), ...tags];
    return names;
  }

  #health(url: URL): unknown[] {
    const name = decodeURIComponent(url.pathname.slice('/v1/health/service/'.length));
    const wanted = url.searchParams.getAll('tag');
    return this.entries
      .filter((entry) => entry.name === name && entry.failing !== true)
      .filter(({ tags = [] }) => wanted.every((tag) => tags.includes(tag)))
      .map(({ ip, port, tags = [], meta = {}, nodeMeta = {}, nodeAddress = ip, weight = 1 }) => ({
        Node: { Node: `n-${nodeAddress}`, Address: nodeAddress, Datacenter: 'dc1', Meta: nodeMeta },
        Service: {
          ID: `${name}-${ip}`,
          Service: name,
          Tags: tags,
          Address: nodeAddress === ip ? '' : ip,
          Port: port,
          Meta: meta,
          Weights: { Passing: weight, Warning: 1 },
        },
        Checks: [],
      }));
  }
}
