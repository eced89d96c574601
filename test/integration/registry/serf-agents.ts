import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { freePort, killed } from './child-servers.ts';

const run = promisify(execFile);

/** A real Serf agent on a loopback address of its own. */
export class SerfAgent {
  readonly name: string;
  readonly ip: string;
  readonly rpcPort: number;
  readonly #gossip: string;
  readonly #options: readonly string[];
  readonly #authKey: string | undefined;
  /** Serf takes the key of its RPC port from a file only. */
  #keyFile: string | undefined;
  #process: ChildProcess | undefined;
  #output = '';

  private constructor(
    name: string,
    ip: string,
    ports: readonly [number, number],
    authKey: string | undefined,
    seeds: readonly SerfAgent[],
  ) {
    this.name = name;
    this.ip = ip;
    this.rpcPort = ports[0];
    this.#gossip = `${ip}:${ports[1]}`;
    this.#authKey = authKey;
    this.#options = seeds.flatMap((agent) => [`-retry-join=${agent.#gossip}`, '-retry-interval=1s']);
  }

  static async start(
    name: string,
    ip: string,
    tags: Readonly<Record<string, string>>,
    options: { readonly join?: readonly SerfAgent[]; readonly authKey?: string } = {},
  ): Promise<SerfAgent> {
    const ports = [await freePort(), await freePort()] as const;
    const agent = new SerfAgent(name, ip, ports, options.authKey, options.join ?? []);
    await agent.start(tags);
    return agent;
  }

  /** Starts the agent (again) and waits until its RPC port answers. */
  async start(tags: Readonly<Record<string, string>>): Promise<void> {
    this.#output = '';
    if (this.#authKey !== undefined) {
      this.#keyFile = join(mkdtempSync(join(tmpdir(), 'mnreg-')), 'serf.json');
      writeFileSync(this.#keyFile, JSON.stringify({ rpc_auth: this.#authKey }));
    }
    const key = this.#keyFile === undefined ? [] : [`-config-file=${this.#keyFile}`];
    const given = Object.entries(tags).flatMap(([tag, value]) => ['-tag', `${tag}=${value}`]);
    const fixed = [
      'agent',
      `-node=${this.name}`,
      `-bind=${this.#gossip}`,
      `-rpc-addr=127.0.0.1:${this.rpcPort}`,
      '-log-level=warn',
    ];
    const child = spawn('serf', [...fixed, ...key, ...this.#options, ...given], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#process = child;
    const keep = (bytes: Buffer) => {
      this.#output = (this.#output + bytes.toString()).slice(-4000);
    };
    child.stdout!.on('data', keep);
    child.stderr!.on('data', keep);
    const deadline = Date.now() + 15_000;
    for (;;) {
      try {
        await this.#command('members', []);
        return;
      } catch (error) {
        if (child.exitCode !== null || Date.now() > deadline)
          throw new Error(`serf: ${this.#output}`, { cause: error });
      }
    }
  }

  async setTags(tags: Readonly<Record<string, string>>): Promise<void> {
    await this.#command(
      'tags',
      Object.entries(tags).flatMap(([tag, value]) => ['-set', `${tag}=${value}`]),
    );
  }

  async leave(): Promise<void> {
    await this.#command('leave', []);
  }

  /** SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (this.#keyFile !== undefined) rmSync(dirname(this.#keyFile), { recursive: true, force: true });
    await killed(child);
  }

  async #command(command: string, rest: readonly string[]): Promise<void> {
    const key = this.#authKey === undefined ? [] : [`-rpc-auth=${this.#authKey}`];
    await run('serf', [command, `-rpc-addr=127.0.0.1:${this.rpcPort}`, ...key, ...rest]);
  }
}
