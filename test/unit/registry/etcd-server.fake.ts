import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

interface Stored {
  readonly value: Buffer;
  readonly revision: number;
}

interface Watcher {
  readonly response: ServerResponse;
  readonly key: string;
  readonly end: string;
}

interface Change {
  readonly key: string;
  readonly revision: number;
  readonly value: Buffer | undefined;
}

const text = (value: unknown) => Buffer.from(String(value ?? ''), 'base64').toString();
const base64 = (value: string | Buffer) => Buffer.from(value).toString('base64');

/** The JSON gateway of an etcd server, as far as a reader needs it. */
export class FakeEtcd {
  port = 0;
  revision = 1;
  cluster = '77';
  readonly #keys = new Map<string, Stored>();
  readonly #changes: Change[] = [];
  #compacted = 0;
  /** Changes are not told any more, as a watch that stalls. */
  stalled = false;
  /** Nothing is answered any more. */
  silent = false;
  /** What is answered instead: the path that was asked for decides. */
  instead: ((path: string, response: ServerResponse) => boolean) | undefined;
  /** With it, every question needs the token that this user's password gives. */
  password: string | undefined;
  token = 'token.1';
  readonly asked: string[] = [];
  readonly questions: Record<string, unknown>[] = [];
  #server: Server | undefined;
  readonly #sockets = new Set<Socket>();
  readonly #watchers = new Set<Watcher>();

  async listen(): Promise<void> {
    const server = createServer((request, response) => void this.#serve(request, response));
    server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.port, '127.0.0.1', resolve));
    this.port = (server.address() as { port: number }).port;
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    this.dropConnections();
    if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  }

  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#watchers.clear();
  }

  get watchers(): number {
    return this.#watchers.size;
  }

  put(key: string, value: string | object): void {
    const bytes = Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
    this.#keys.set(key, { value: bytes, revision: ++this.revision });
    this.#change({ key, revision: this.revision, value: bytes });
  }

  delete(key: string): void {
    if (!this.#keys.delete(key)) return;
    this.#change({ key, revision: ++this.revision, value: undefined });
  }

  /** Exactly these keys; what stays the same causes no change. */
  become(values: Readonly<Record<string, object>>): void {
    for (const key of [...this.#keys.keys()]) if (!(key in values)) this.delete(key);
    for (const [key, value] of Object.entries(values)) {
      if (this.#keys.get(key)?.value.toString() !== JSON.stringify(value)) this.put(key, value);
    }
  }

  compact(): void {
    this.#compacted = this.revision;
    for (const { response } of this.#watchers)
      this.#say(response, { canceled: true, compact_revision: String(this.revision) });
    this.#watchers.clear();
  }

  /** The store is a new one without content. */
  loseData(): void {
    this.cluster = '78';
    this.revision = 1;
    this.#compacted = 0;
    this.#keys.clear();
    this.#changes.length = 0;
  }

  /** Tells the watches how far they are. */
  progress(): void {
    for (const { response } of this.#watchers) this.#say(response, {});
  }

  /** Says these bytes on every watch. */
  blurt(bytes: string | Buffer): void {
    for (const { response } of this.#watchers) response.write(bytes);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined);
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const path = request.url ?? '';
    const question = JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>;
    this.asked.push(path);
    this.questions.push(question);
    if (this.silent || this.instead?.(path, response) === true) return;
    if (path === '/v3/auth/authenticate') {
      if (question['password'] !== this.password)
        this.#refuse(response, 400, 'etcdserver: authentication failed, invalid user ID or password');
      else this.#answer(response, { token: this.token });
      return;
    }
    if (this.password !== undefined && request.headers.authorization !== this.token)
      this.#refuse(response, 401, 'etcdserver: invalid auth token');
    else if (path === '/v3/kv/range') this.#range(question, response);
    else if (path === '/v3/watch') this.#watch(question, response);
    else this.#refuse(response, 404, 'Not Found');
  }

  #range(question: Record<string, unknown>, response: ServerResponse): void {
    if (question['revision'] !== undefined && Number(question['revision']) < this.#compacted) {
      this.#refuse(response, 400, 'etcdserver: mvcc: required revision has been compacted');
      return;
    }
    const [from, end] = [text(question['key']), text(question['range_end'])];
    const limit = Number(question['limit'] ?? 0) || Number.MAX_SAFE_INTEGER;
    const all = [...this.#keys]
      .filter(([key]) => key >= from && key < end)
      .sort(([a], [b]) => (a < b ? -1 : 1));
    const kvs = all.slice(0, limit).map(([key, { value, revision }]) => ({
      key: base64(key),
      mod_revision: String(revision),
      ...(question['keys_only'] === true ? {} : { value: base64(value) }),
    }));
    this.#answer(response, {
      header: this.#header(),
      kvs,
      more: all.length > limit,
      count: String(all.length),
    });
  }

  #watch(question: Record<string, unknown>, response: ServerResponse): void {
    const create = question['create_request'] as Record<string, unknown>;
    const watcher = { response, key: text(create['key']), end: text(create['range_end']) };
    response.writeHead(200, { 'content-type': 'application/json' });
    this.#say(response, { created: true });
    const from = Number(create['start_revision']);
    if (from < this.#compacted) {
      this.#say(response, { canceled: true, compact_revision: String(this.#compacted) });
      return;
    }
    this.#watchers.add(watcher);
    response.on('close', () => this.#watchers.delete(watcher));
    for (const change of this.#changes) if (change.revision >= from) this.#tell(watcher, change);
  }

  #change(change: Change): void {
    this.#changes.push(change);
    if (!this.stalled) for (const watcher of this.#watchers) this.#tell(watcher, change);
  }

  #tell({ response, key: from, end }: Watcher, { key, revision, value }: Change): void {
    if (key < from || key >= end) return;
    const kv = { key: base64(key), mod_revision: String(revision) };
    const event = value === undefined ? { type: 'DELETE', kv } : { kv: { ...kv, value: base64(value) } };
    this.#say(response, { events: [event] });
  }

  #header() {
    return { cluster_id: this.cluster, revision: String(this.revision) };
  }

  #say(response: ServerResponse, result: object): void {
    response.write(`${JSON.stringify({ result: { header: this.#header(), ...result } })}\n`);
  }

  #answer(response: ServerResponse, answer: object): void {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(answer));
  }

  #refuse(response: ServerResponse, status: number, error: string): void {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ error, message: error }));
  }
}
