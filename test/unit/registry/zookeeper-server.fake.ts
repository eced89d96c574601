import { createServer, type Server, type Socket } from 'node:net';

const text = (value: string | Buffer) => {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([int(bytes.length), bytes]);
};
const int = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const long = (value: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(value);
  return bytes;
};
const framed = (...parts: Buffer[]) => text(Buffer.concat(parts));

const kinds = { created: 1, deleted: 2, data: 3, children: 4 } as const;
const parentOf = (path: string) => path.slice(0, path.lastIndexOf('/')) || '/';

/** A ZooKeeper server, as far as a reader needs it: one-time watches, transactions that are counted, sessions that end. */
export class FakeZookeeper {
  port = 0;
  /** Path and data of everything that is there. */
  readonly nodes = new Map<string, string>();
  /** Changes are not told any more. */
  stalled = false;
  /** Nothing is answered any more. */
  silent = false;
  /** Paths that nobody may read. */
  readonly forbidden = new Set<string>();
  /** What the first word of each connection asked for. */
  readonly sessions: { readonly lastZxid: bigint; readonly timeout: number }[] = [];
  readonly credentials: string[] = [];
  password: string | undefined;
  closings = 0;
  zxid = 0n;
  #watches = new Map<string, Set<Socket>>();
  #sockets = new Set<Socket>();
  #server: Server | undefined;

  async listen(): Promise<void> {
    const server = createServer((socket) => this.#serve(socket));
    await new Promise<void>((resolve) => server.listen(this.port, '127.0.0.1', resolve));
    this.port = (server.address() as { port: number }).port;
    this.#server = server;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    const server = this.#server;
    this.#server = undefined;
    if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  }

  /** Ends all sessions, as a server does that has not heard of them for too long. */
  expire(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  blurt(bytes: Buffer): void {
    for (const socket of this.#sockets) socket.write(bytes);
  }

  put(path: string, data: string): void {
    const isNew = !this.nodes.has(path);
    if (isNew && path !== '/' && !this.nodes.has(parentOf(path))) this.put(parentOf(path), '');
    this.nodes.set(path, data);
    this.zxid++;
    this.#fire(isNew ? 'created' : 'data', path, isNew ? ['exists'] : ['data', 'exists']);
    if (isNew) this.#fire('children', parentOf(path), ['children']);
  }

  remove(path: string): void {
    for (const below of [...this.nodes.keys()])
      if (parentOf(below) === path && below !== path) this.remove(below);
    this.nodes.delete(path);
    this.zxid++;
    this.#fire('deleted', path, ['data', 'exists', 'children']);
    this.#fire('children', parentOf(path), ['children']);
  }

  #fire(change: keyof typeof kinds, path: string, which: readonly string[]): void {
    const sockets = new Set<Socket>();
    for (const kind of which) {
      for (const socket of this.#watches.get(`${kind} ${path}`) ?? []) sockets.add(socket);
      this.#watches.delete(`${kind} ${path}`);
    }
    if (this.stalled) return;
    const event = framed(int(-1), long(-1n), int(0), int(kinds[change]), int(3), text(path));
    for (const socket of sockets) socket.write(event);
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => undefined);
    let buffered = Buffer.alloc(0);
    let greeted = false;
    socket.on('data', (bytes) => {
      buffered = Buffer.concat([buffered, bytes]);
      while (buffered.length >= 4 && buffered.length >= 4 + buffered.readInt32BE(0)) {
        const frame = buffered.subarray(4, 4 + buffered.readInt32BE(0));
        buffered = buffered.subarray(4 + frame.length);
        if (this.silent) continue;
        if (greeted) this.#answer(socket, frame);
        else {
          greeted = true;
          const lastZxid = frame.readBigInt64BE(4);
          const timeout = frame.readInt32BE(12);
          this.sessions.push({ lastZxid, timeout });
          if (lastZxid > this.zxid) socket.destroy();
          else socket.write(framed(int(0), int(timeout), long(7n), text(Buffer.alloc(16)), Buffer.of(0)));
        }
      }
    });
  }

  #answer(socket: Socket, frame: Buffer): void {
    const xid = frame.readInt32BE(0);
    const operation = frame.readInt32BE(4);
    const reply = (error: number, ...body: Buffer[]) =>
      socket.write(framed(int(xid), long(this.zxid), int(error), ...body));
    if (operation === 11) return void reply(0);
    if (operation === -11) {
      this.closings++;
      return void socket.end();
    }
    if (operation === 100) {
      const scheme = frame.readInt32BE(12);
      const secret = frame.subarray(20 + scheme).toString();
      this.credentials.push(`${frame.subarray(16, 16 + scheme)} ${secret}`);
      return void reply(this.password === undefined || secret === this.password ? 0 : -115);
    }
    const path = frame.subarray(12, 12 + frame.readInt32BE(8)).toString();
    const there = this.nodes.has(path);
    const watch = (kind: string) => {
      const key = `${kind} ${path}`;
      this.#watches.set(key, (this.#watches.get(key) ?? new Set()).add(socket));
    };
    const stat = Buffer.alloc(68);
    if (this.forbidden.has(path)) return void reply(-102);
    if (operation === 3) watch('exists');
    if (!there) return void reply(-101);
    if (operation === 3) return void reply(0, stat);
    if (operation === 4) {
      watch('data');
      return void reply(0, text(this.nodes.get(path)!), stat);
    }
    watch('children');
    const names = [...this.nodes.keys()].filter((key) => key !== '/' && parentOf(key) === path);
    reply(0, int(names.length), ...names.map((name) => text(name.slice(name.lastIndexOf('/') + 1))));
  }
}
