import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort, killed } from './child-servers.ts';

const run = promisify(execFile);
const base64 = (text: string) => Buffer.from(text).toString('base64');

export interface ServerTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** A real etcd server on loopback, with a data directory of its own. */
export class EtcdServer {
  readonly endpoint: string;
  readonly #arguments: readonly string[];
  readonly #directory: string;
  readonly #url: string;
  readonly #tls: ServerTls | undefined;
  #process: ChildProcess | undefined;
  #output = '';

  private constructor(ports: readonly [number, number], tls: ServerTls | undefined) {
    this.#directory = mkdtempSync(join(tmpdir(), 'mnetcd-'));
    this.endpoint = `127.0.0.1:${ports[0]}`;
    this.#tls = tls;
    this.#url = `${tls === undefined ? 'http' : 'https'}://${this.endpoint}`;
    const peer = `http://127.0.0.1:${ports[1]}`;
    this.#arguments = [
      `--data-dir=${join(this.#directory, 'data')}`,
      `--listen-client-urls=${this.#url}`,
      `--advertise-client-urls=${this.#url}`,
      `--listen-peer-urls=${peer}`,
      `--initial-advertise-peer-urls=${peer}`,
      `--initial-cluster=default=${peer}`,
      '--unsafe-no-fsync',
      ...(tls === undefined
        ? []
        : [
            `--cert-file=${tls.cert}`,
            `--key-file=${tls.key}`,
            `--trusted-ca-file=${tls.ca}`,
            '--client-cert-auth',
          ]),
    ];
  }

  static async start(tls?: ServerTls): Promise<EtcdServer> {
    const server = new EtcdServer([await freePort(), await freePort()], tls);
    await server.start();
    return server;
  }

  /** Starts the server (again) and waits until it answers. */
  async start(): Promise<void> {
    this.#output = '';
    const child = spawn('etcd', this.#arguments, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = child;
    const keep = (bytes: Buffer) => {
      this.#output = (this.#output + bytes.toString()).slice(-4000);
    };
    child.stdout!.on('data', keep);
    child.stderr!.on('data', keep);
    const deadline = Date.now() + 15_000;
    for (;;) {
      try {
        await this.ask('/v3/kv/range', { key: base64('/') });
        return;
      } catch (error) {
        if (child.exitCode !== null || Date.now() > deadline)
          throw new Error(`etcd: ${this.#output}`, { cause: error });
      }
    }
  }

  async put(key: string, value: object | string): Promise<void> {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    await this.ask('/v3/kv/put', { key: base64(key), value: base64(text) });
  }

  async delete(key: string): Promise<void> {
    await this.ask('/v3/kv/deleterange', { key: base64(key) });
  }

  /** Forgets everything before the present. */
  async compact(): Promise<void> {
    const { header } = (await this.ask('/v3/kv/range', { key: base64('/') })) as {
      header: { revision: string };
    };
    await this.ask('/v3/kv/compaction', { revision: header.revision, physical: true });
  }

  /** One question to the JSON gateway, asked with a program that nobody here wrote. */
  async ask(path: string, body: object): Promise<unknown> {
    const tls = this.#tls;
    const files = tls === undefined ? [] : ['--cacert', tls.ca, '--cert', tls.cert, '--key', tls.key];
    const { stdout } = await run('curl', [
      '--silent',
      '--fail-with-body',
      '--max-time',
      '5',
      ...files,
      '--data',
      JSON.stringify(body),
      `${this.#url}${path}`,
    ]);
    return JSON.parse(stdout);
  }

  /** SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  async stop(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    await killed(child);
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** Connections to a server that can be cut while it goes on. */
export class Relay {
  /** The last bytes that came from the server. */
  heard = '';
  readonly #target: readonly [string, number];
  #port = 0;
  #server: Server | undefined;
  readonly #sockets = new Set<Socket>();

  constructor(target: string) {
    const [host, port] = target.split(':') as [string, string];
    this.#target = [host, Number(port)];
  }

  get endpoint(): string {
    return `127.0.0.1:${this.#port}`;
  }

  async open(): Promise<void> {
    const server = createServer((near) => {
      const far = connect(this.#target[1], this.#target[0]);
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.on('error', () => undefined);
        socket.on('close', () => {
          near.destroy();
          far.destroy();
          this.#sockets.delete(socket);
        });
      }
      near.pipe(far);
      far.pipe(near);
      far.on('data', (bytes) => {
        this.heard = (this.heard + bytes.toString()).slice(-4000);
      });
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve));
    this.#port = (server.address() as { port: number }).port;
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    for (const socket of this.#sockets) socket.destroy();
    if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  }
}
