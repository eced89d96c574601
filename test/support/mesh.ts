import { access, chmod, chown, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { adminSocket, type ReadyAnswer, type StatusAnswer } from '../../src/admin/api.ts';
import type { ConfigInput } from '../../src/config/schema.ts';
import { initAuthority, issueNode, writeNodeBundle } from '../../src/identity/authority.ts';
import type { ConnectionRecord } from '../../src/model/connection.ts';
import type { RequestRecord } from '../../src/model/request.ts';
import { must, type Outcome, type Running, run, waitFor } from './process.ts';
import { type Host, REPOSITORY, type Topology, type User } from './topology.ts';

/** Port of every tunnel listener in tests: the product's own default. */
export const TUNNEL_PORT = 15_008;

/** The user that the daemon runs as, made when the machine does not have it yet. */
async function meshUser(): Promise<User> {
  const name = 'mesh-node';
  // Files run side by side: another may have made it in between, so only its absence afterwards counts.
  if ((await run(['id', '-u', name])).code !== 0) {
    await run([
      ...['useradd', '--system', '--user-group', '--no-create-home', '--home-dir', '/nonexistent'],
      ...['--shell', '/usr/sbin/nologin', name],
    ]);
  }
  return { uid: Number(await must(['id', '-u', name])), gid: Number(await must(['id', '-g', name])) };
}

/** Life of what an authority of a test issues. */
const LIFE_DAYS = 90;

/** An authority of a test: issues certificates as the product's own command does, in this process. */
export class Authority {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async create(directory: string): Promise<Authority> {
    await initAuthority(directory, { trustDomain: 'mesh', days: LIFE_DAYS, overwrite: false });
    return new Authority(directory);
  }

  /** Certificate of a node, written into `to`. */
  async issue(node: string, to: string, grants: Grants): Promise<void> {
    const { callAs = [], host = [], relay = false } = grants;
    const bundle = await issueNode(this.directory, { node, callAs, host, relay, days: LIFE_DAYS });
    await writeNodeBundle(to, bundle, { overwrite: true });
  }
}

/** What a certificate says that a node may do. */
export interface Grants {
  readonly callAs?: readonly string[];
  readonly host?: readonly string[];
  readonly relay?: boolean;
}

/** The built program, at a path that the daemon's user may read wherever the repository lies (in /root, for instance). */
export class Program {
  readonly main: string;
  readonly user: User;

  private constructor(main: string, user: User) {
    this.main = main;
    this.user = user;
  }

  static async prepare(topology: Topology): Promise<Program> {
    await access(join(REPOSITORY, 'dist/main.js')).catch(() => {
      throw new Error('dist/main.js is missing: npm run build');
    });
    const user = await meshUser();
    const directory = join(topology.directory, 'program');
    await mkdir(directory);
    await topology.bind(REPOSITORY, directory);
    return new Program(join(directory, 'dist/main.js'), user);
  }

  /** Runs a command of the product as root in the machine's namespace. */
  cli(args: readonly string[]): Promise<string> {
    return must([process.execPath, this.main, ...args], { timeoutMs: 60_000 });
  }
}

/** A document of the `file` registry. */
export interface CatalogueDocument {
  readonly services?: readonly {
    readonly name: string;
    readonly instances: readonly {
      readonly address: string;
      readonly node?: string;
      readonly zone?: string;
      readonly id?: string;
    }[];
    readonly [key: string]: unknown;
  }[];
  readonly nodes?: readonly { readonly name: string; readonly zone: string; readonly tunnel: string }[];
}

export interface MeshPlan {
  readonly zone: string;
  readonly role?: 'node' | 'zone-agent';
  readonly grants: Grants;
  readonly catalogue?: CatalogueDocument;
  readonly allowList?: readonly string[];
  /** Sections that differ from what a test host has; merged with them key by key. */
  readonly config?: ConfigInput;
}

/** A line of the access log about a connection. */
export type AccessLine = {
  readonly [Key in keyof Omit<ConnectionRecord, 'caller' | 'callerProgram'>]: ConnectionRecord[Key] | null;
} & {
  /** `unit:…`, `container:…`, `user:…` or `unknown`. */
  readonly caller: string | null;
  readonly user: string | null;
};

/** A line of the access log about a request: `undefined` is written as null. */
type RequestLine = {
  readonly [Key in keyof Omit<RequestRecord, 'caller' | 'callerProgram'>]: RequestRecord[Key] | null;
} & {
  readonly caller: string | null;
  readonly user: string | null;
};

/** mesh-node on one host of a topology, run as systemd would run it: an unprivileged user with two capabilities. */
export class MeshHost {
  readonly host: Host;
  readonly directory: string;
  readonly #program: Program;
  readonly #plan: MeshPlan;
  #running: Running | undefined;

  private constructor(host: Host, program: Program, plan: MeshPlan) {
    this.host = host;
    this.directory = join(host.directory, 'mesh');
    this.#program = program;
    this.#plan = plan;
  }

  /** Writes everything a host needs; starts nothing. */
  static async prepare(
    host: Host,
    program: Program,
    authority: Authority,
    plan: MeshPlan,
  ): Promise<MeshHost> {
    const mesh = new MeshHost(host, program, plan);
    for (const name of ['', 'identity', 'catalogue.d', 'policies.d', 'state', 'run', 'log']) {
      const directory = join(mesh.directory, name);
      await mkdir(directory, { mode: 0o755 });
      await chown(directory, program.user.uid, program.user.gid);
    }
    await mesh.issue(authority, plan.grants);
    await writeFile(mesh.configFile, JSON.stringify(mesh.#config(), undefined, 2));
    await mesh.writeAllowList(plan.allowList ?? []);
    if (plan.catalogue !== undefined) await mesh.writeCatalogue('services.yaml', plan.catalogue);
    return mesh;
  }

  static async start(host: Host, program: Program, authority: Authority, plan: MeshPlan): Promise<MeshHost> {
    const mesh = await MeshHost.prepare(host, program, authority, plan);
    await mesh.start();
    return mesh;
  }

  /** The user that the daemon runs as. */
  get user(): User {
    return this.#program.user;
  }

  get configFile(): string {
    return join(this.directory, 'mesh-node.yaml');
  }

  get catalogueDirectory(): string {
    return join(this.directory, 'catalogue.d');
  }

  get policiesDirectory(): string {
    return join(this.directory, 'policies.d');
  }

  #config(): ConfigInput {
    const at = (name: string) => join(this.directory, name);
    const base: ConfigInput = {
      node: { name: this.host.name, zone: this.#plan.zone },
      capture: {
        allowList: at('allow-list'),
        disabledFile: at('disabled'),
        // Files run side by side: a worker that is late for a second is no news here. Tests of failing open say 1s.
        deadAfter: '5s',
        ...(this.#plan.role === 'zone-agent' ? { mode: 'off' } : {}),
      },
      guard: { maxDelay: '5s' },
      tunnel: { port: TUNNEL_PORT },
      identity: {
        authority: at('identity/ca.crt'),
        certificate: at('identity/node.crt'),
        key: at('identity/node.key'),
      },
      registries: [{ type: 'file', directory: this.catalogueDirectory }],
      policies: { directory: this.policiesDirectory },
      cache: { file: at('state/catalogue.cache'), writeDelay: '50ms' },
      daemon: { stateDirectory: at('state'), runtimeDirectory: at('run'), drainTimeout: '2s' },
      telemetry: {
        accessLog: at('log/access.log'),
        metricsListen: '127.0.0.1:15090',
        flushInterval: '100ms',
      },
    };
    return merge(base, this.#plan.config ?? {}) as ConfigInput;
  }

  /** Gives this host a new certificate; a running daemon takes it with {@link reload}. */
  async issue(authority: Authority, grants: Grants): Promise<void> {
    const identity = join(this.directory, 'identity');
    await authority.issue(this.host.name, identity, grants);
    for (const name of ['node.key', 'node.crt', 'ca.crt']) {
      await chown(join(identity, name), this.#program.user.uid, this.#program.user.gid);
    }
  }

  async writeCatalogue(name: string, document: CatalogueDocument): Promise<void> {
    await writeFile(join(this.catalogueDirectory, name), JSON.stringify(document, undefined, 2));
    await chmod(join(this.catalogueDirectory, name), 0o644);
  }

  /** Puts documents of policies (YAML) in place, at once; the daemon finds them by itself within 100 ms. */
  async writePolicies(name: string, documents: string): Promise<void> {
    const fresh = join(this.policiesDirectory, `.${name}`);
    await writeFile(fresh, documents, { mode: 0o644 });
    await rename(fresh, join(this.policiesDirectory, name));
  }

  /** Puts one document of policies in force: resolves when every worker goes by it. */
  async sayPolicies(document: object): Promise<void> {
    const { version } = (await this.status()).policies;
    await this.writePolicies('said.yaml', stringify(document));
    await waitFor('the policy is in force', async () => {
      const { policies, workers } = await this.status();
      const inForce = workers.every(({ policyVersion }) => policyVersion === policies.version);
      return policies.version > version && inForce;
    });
  }

  async writeAllowList(entries: readonly string[]): Promise<void> {
    await writeFile(join(this.directory, 'allow-list'), `${entries.join('\n')}\n`, { mode: 0o644 });
  }

  /** The supervisor. */
  get running(): Running {
    if (this.#running === undefined) throw new Error(`mesh-node of ${this.host.name} was not started`);
    return this.#running;
  }

  /** Starts the daemon and waits until it is ready. */
  async start(): Promise<void> {
    this.launch();
    await this.ready();
  }

  /** Starts the daemon and waits for nothing. */
  launch(): Running {
    this.#running = this.host.spawn(
      'mesh-node',
      [
        process.execPath,
        this.#program.main,
        this.#plan.role === 'zone-agent' ? 'zone-agent' : 'run',
        '--config',
        this.configFile,
      ],
      {
        user: this.#program.user,
        capabilities: ['net_admin', 'net_raw'],
        logFile: join(this.directory, 'log/daemon.log'),
        cwd: '/',
      },
    );
    return this.#running;
  }

  async ready(timeoutMs = 60_000): Promise<void> {
    let last: ReadyAnswer | undefined;
    try {
      await waitFor(
        `mesh-node of ${this.host.name} is ready`,
        async () => {
          last = (await this.api('/v1/ready')) as ReadyAnswer;
          return last.ready;
        },
        { timeoutMs, alive: this.running },
      );
    } catch (error) {
      throw new Error(`${String(error)}\nlast answer: ${JSON.stringify(last)}`);
    }
  }

  /** Asks the admin API; resolves with the answer whatever its status. */
  api(path: string, method: 'GET' | 'POST' = 'GET'): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const question = request(
        { socketPath: adminSocket(join(this.directory, 'run')), path, method, timeout: 10_000 },
        (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (part: string) => {
            text += part;
          });
          answer.on('end', () => {
            try {
              resolve(JSON.parse(text));
            } catch (error) {
              reject(error);
            }
          });
        },
      );
      question.on('timeout', () => question.destroy(new Error(`no answer to ${path} within 10 s`)));
      question.on('error', reject);
      question.end();
    });
  }

  async status(): Promise<StatusAnswer> {
    return (await this.api('/v1/status')) as StatusAnswer;
  }

  /** The product's command line on this host, with its configuration, as root. */
  cli(args: readonly string[]): Promise<Outcome> {
    return this.host.exec([process.execPath, this.#program.main, ...args, '--config', this.configFile], {
      timeoutMs: 60_000,
    });
  }

  /** Samples of the metrics page by name and labels as they stand there: `mesh_node_tunnels{state="open"}`. */
  async metrics(): Promise<ReadonlyMap<string, number>> {
    const page = await this.host.must(['curl', '-sS', '--max-time', '5', 'http://127.0.0.1:15090/metrics']);
    const samples = new Map<string, number>();
    for (const line of page.split('\n')) {
      const space = line.lastIndexOf(' ');
      if (space > 0 && !line.startsWith('#'))
        samples.set(line.slice(0, space), Number(line.slice(space + 1)));
    }
    return samples;
  }

  /** Sum of all samples of a metric whose labels contain all of these texts. */
  async metric(name: string, ...labels: readonly string[]): Promise<number> {
    let sum = 0;
    for (const [sample, value] of await this.metrics()) {
      if (
        (sample === name || sample.startsWith(`${name}{`)) &&
        labels.every((label) => sample.includes(label))
      )
        sum += value;
    }
    return sum;
  }

  /** Every connection that has ended so far. */
  async accessLog(): Promise<AccessLine[]> {
    return (await this.#logLines('access')).map((line) => JSON.parse(line) as AccessLine);
  }

  /** Every request of HTTP that has ended so far. */
  async requestLog(): Promise<RequestLine[]> {
    return (await this.#logLines('request')).map((line) => JSON.parse(line) as RequestLine);
  }

  async #logLines(kind: 'access' | 'request'): Promise<string[]> {
    const text = await readFile(join(this.directory, 'log/access.log'), 'utf8').catch(() => '');
    return text.split('\n').filter((line) => line.startsWith(`{"log":"${kind}"`));
  }

  /** Waits for an access-log line: lines are written when a connection has ended, and in blocks. */
  logged(what: string, matches: (line: AccessLine) => boolean): Promise<AccessLine> {
    return waitFor(`${this.host.name} logs ${what}`, async () => (await this.accessLog()).findLast(matches));
  }

  async reload(): Promise<void> {
    await this.api('/v1/reload', 'POST');
  }

  /** Process ids of the workers that run. */
  async workers(): Promise<number[]> {
    const { workers } = await this.status();
    return workers.filter(({ state }) => state !== 'gone').map(({ pid }) => pid);
  }

  /** Every process of the daemon, the supervisor first. */
  async processes(): Promise<number[]> {
    return [this.running.pid, ...(await this.workers())];
  }

  /** Sends a signal to every process of the daemon, for what happens to a whole agent. */
  async signalAll(signal: NodeJS.Signals, pids?: readonly number[]): Promise<readonly number[]> {
    const all = pids ?? (await this.processes());
    for (const pid of all) process.kill(pid, signal);
    return all;
  }

  /** Ends the daemon as systemd would; resolves with its exit code. */
  stop(): Promise<number> {
    return this.running.stop('SIGTERM', 30_000);
  }
}

function merge(base: object, over: object): object {
  const result: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const before = result[key];
    const both = isPlain(before) && isPlain(value);
    result[key] = both ? merge(before, value) : value;
  }
  return result;
}

function isPlain(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
