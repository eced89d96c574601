import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { freePort, killed } from './child-servers.ts';

/** A real ZooKeeper on loopback (packages zookeeper and a headless JRE). */
export class Zookeeper {
  readonly port: number;
  readonly #directory = mkdtempSync(join(tmpdir(), 'mnzk-'));
  #process: ChildProcess | undefined;
  #output = '';

  private constructor(port: number) {
    this.port = port;
  }

  static async start(): Promise<Zookeeper> {
    const zookeeper = new Zookeeper(await freePort());
    zookeeper.#configure();
    try {
      await zookeeper.start();
    } catch (error) {
      await zookeeper.close();
      throw error;
    }
    return zookeeper;
  }

  /** Starts it (again), with the data that it had, and waits until it serves. */
  async start(): Promise<void> {
    this.#output = '';
    const child = spawn(
      'java',
      [
        ...[
          '-Xmx128m',
          '-XX:+UseSerialGC',
          '-XX:TieredStopAtLevel=1',
          '-Dzookeeper.4lw.commands.whitelist=srvr',
        ],
        ...['-cp', '/etc/zookeeper/conf:/usr/share/java/zookeeper.jar'],
        ...['org.apache.zookeeper.server.quorum.QuorumPeerMain', join(this.#directory, 'zoo.cfg')],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    this.#process = child;
    const keep = (bytes: Buffer) => {
      this.#output = (this.#output + bytes.toString()).slice(-4000);
    };
    child.stdout!.on('data', keep);
    child.stderr!.on('data', keep);
    const deadline = Date.now() + 30_000;
    while (!(await this.#serves())) {
      if (child.exitCode !== null || Date.now() > deadline) throw new Error(`ZooKeeper: ${this.#output}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    await killed(child);
  }

  async close(): Promise<void> {
    await this.kill();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #configure(): void {
    mkdirSync(join(this.#directory, 'data'));
    const fixed = ['tickTime=500', 'minSessionTimeout=1000', 'admin.enableServer=false'];
    const own = [
      `dataDir=${join(this.#directory, 'data')}`,
      `clientPort=${this.port}`,
      'clientPortAddress=127.0.0.1',
    ];
    writeFileSync(join(this.#directory, 'zoo.cfg'), `${[...fixed, ...own].join('\n')}\n`);
  }

  /** Whether it answers `srvr`, its command of four letters, as a server that serves. */
  async #serves(): Promise<boolean> {
    const socket = connect(this.port, '127.0.0.1');
    let answer = '';
    socket.on('data', (bytes) => {
      answer += bytes;
    });
    socket.on('error', () => undefined);
    socket.on('connect', () => socket.write('srvr'));
    socket.setTimeout(1000, () => socket.destroy());
    await new Promise((resolve) => socket.once('close', resolve));
    return answer.includes('Mode: standalone');
  }
}

const frame = (...parts: Buffer[]) => {
  const body = Buffer.concat(parts);
  return Buffer.concat([int(body.length), body]);
};
const int = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const ANYONE = Buffer.concat([int(1), int(31), frame(Buffer.from('world')), frame(Buffer.from('anyone'))]);

/** A program that registers itself: a session of its own that makes, changes and removes nodes. */
export class Registrar {
  readonly #socket: Socket;
  readonly #waiting: ((frame: Buffer) => void)[] = [];
  #buffered = Buffer.alloc(0);
  readonly #beat: NodeJS.Timeout;

  private constructor(port: number) {
    this.#socket = connect(port, '127.0.0.1');
    this.#socket.on('error', () => undefined);
    this.#socket.on('data', (bytes) => {
      this.#buffered = Buffer.concat([this.#buffered, bytes]);
      while (this.#buffered.length >= 4 && this.#buffered.length >= 4 + this.#buffered.readInt32BE(0)) {
        const length = this.#buffered.readInt32BE(0);
        const answer = this.#buffered.subarray(4, 4 + length);
        this.#buffered = this.#buffered.subarray(4 + length);
        if (answer.readInt32BE(0) !== -2) this.#waiting.shift()?.(answer);
      }
    });
    this.#beat = setInterval(() => this.#socket.write(frame(int(-2), int(11))), 300);
  }

  static async open(port: number, sessionTimeout = 5000): Promise<Registrar> {
    const registrar = new Registrar(port);
    const body = Buffer.alloc(45);
    body.writeInt32BE(sessionTimeout, 12);
    body.writeInt32BE(16, 24);
    await registrar.#ask(frame(body));
    return registrar;
  }

  /** Makes a path with everything above it. */
  async path(path: string): Promise<void> {
    for (let at = path.indexOf('/', 1); ; at = path.indexOf('/', at + 1)) {
      await this.#create(at < 0 ? path : path.slice(0, at), '', 0, ANYONE);
      if (at < 0) return;
    }
  }

  /** A path that only these credentials (a digest, as `scheme:id`) may read. */
  async privatePath(path: string, digest: string): Promise<void> {
    const acl = [int(1), int(31), frame(Buffer.from('digest')), frame(Buffer.from(digest))];
    await this.#create(path, '', 0, Buffer.concat(acl));
  }

  async authenticate(secret: string): Promise<void> {
    await this.#ask(
      frame(int(-4), int(100), int(0), frame(Buffer.from('digest')), frame(Buffer.from(secret))),
    );
  }

  /** Registers an instance (EPHEMERAL_SEQUENTIAL); resolves with its path. */
  async join(path: string, member: object): Promise<string> {
    const answer = await this.#create(`${path}/member_`, JSON.stringify(member), 3, ANYONE);
    return answer.subarray(20, 20 + answer.readInt32BE(16)).toString();
  }

  async set(path: string, member: object): Promise<void> {
    const data = frame(Buffer.from(JSON.stringify(member)));
    await this.#ask(frame(int(1), int(5), frame(Buffer.from(path)), data, int(-1)));
  }

  async remove(path: string): Promise<void> {
    await this.#ask(frame(int(1), int(2), frame(Buffer.from(path)), int(-1)));
  }

  /** Is gone without a word, as a host that lost its power: its members go when the session expires. */
  vanish(): void {
    clearInterval(this.#beat);
    this.#socket.destroy();
  }

  #create(path: string, data: string, flags: number, acl: Buffer): Promise<Buffer> {
    return this.#ask(
      frame(int(1), int(1), frame(Buffer.from(path)), frame(Buffer.from(data)), acl, int(flags)),
    );
  }

  #ask(bytes: Buffer): Promise<Buffer> {
    this.#socket.write(bytes);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

/** A relay, of TLS when it has a certificate, that can stall: nothing passes in either direction, and nobody is told. */
export class Relay {
  readonly #to: number;
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  stalled = false;

  private constructor(to: number, tls: { readonly cert: string; readonly key: string } | undefined) {
    this.#to = to;
    const take = (socket: Socket) => {
      const upstream = connect(this.#to, '127.0.0.1');
      const pair = [socket, upstream] as const;
      this.#pairs.add(pair);
      for (const [from, other] of [pair, [upstream, socket] as const]) {
        from.on('data', (bytes) => this.stalled || other.write(bytes));
        from.on('error', () => undefined);
        from.on('close', () => {
          this.#pairs.delete(pair);
          if (!this.stalled) other.destroy();
        });
      }
    };
    this.#server = tls === undefined ? createServer(take) : createTlsServer(tls, take);
  }

  static async to(port: number, tls?: { readonly cert: string; readonly key: string }): Promise<Relay> {
    const relay = new Relay(port, tls);
    await new Promise<void>((resolve) => relay.#server.listen(0, '127.0.0.1', resolve));
    return relay;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  async close(): Promise<void> {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
