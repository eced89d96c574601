import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { must, type Outcome, Running, type RunOptions, run, waitFor } from './process.ts';

/*
 * Hosts and networks as network namespaces. Every host is a namespace of its own; every network is a bridge in a
 * namespace of its own, so nothing is ever added to the machine's namespace. Names carry the process id of the test,
 * so that runs do not meet, and what a killed run left is found and removed by the next one.
 *
 * A host of a network with a router has a default route, as real hosts do: the kernel routes a connection before the
 * nat table can redirect it, so without any route an application could not even ask for another zone. The router
 * has one leg and no other route: whatever is sent to it is answered "network unreachable".
 */

/** A network: `ipv4` is the first three bytes (`10.81.1`), `ipv6` everything before `::` (`fd81:1`). */
export interface NetworkPlan {
  readonly ipv4: string;
  readonly ipv6: string;
  readonly router: boolean;
  /** A long line between exactly two hosts: delay one way, and rate. */
  readonly line?: { readonly delayMs: number; readonly bytesPerSecond: number };
}

/** For each network that a host stands on, the last part of its addresses there. The first one is its own. */
export type HostPlan = Readonly<Record<string, number>>;

export interface TopologyPlan {
  readonly networks: Readonly<Record<string, NetworkPlan>>;
  readonly hosts: Readonly<Record<string, HostPlan>>;
}

/** The repository, whether this runs as TypeScript or built into build/. */
export const REPOSITORY = new URL('../../', import.meta.url).pathname.replace(/\/build\/$/, '/');
const DELAY_LINK = join(REPOSITORY, 'test/support/delay-link.py');
/** Last part of a router's addresses. */
const ROUTER = 254;
/** The user that servers run as when nothing else is said: it owns nothing. */
export const NOBODY: User = { uid: 65_534, gid: 65_534 };

export interface User {
  readonly uid: number;
  readonly gid: number;
}

export interface SpawnOptions extends RunOptions {
  /** Runs as root when absent. */
  readonly user?: User;
  /** Capabilities that an unprivileged program keeps, as systemd's AmbientCapabilities does: `net_admin`. */
  readonly capabilities?: readonly string[];
  /** What goes on after the program forks away: more than one process shares the log. */
  readonly logFile?: string;
}

/** Shows as many files as `$0` says at other places, and becomes the program. */
const WITH_FILES =
  'n=$0; while [ $n -gt 0 ]; do mount --bind "$1" "$2" || exit 125; shift 2; n=$((n-1)); done; exec "$@"';

/** The command line that drops from root to a user, keeping the process id. */
function asUser(user: User, capabilities: readonly string[] = []): string[] {
  const kept = capabilities.map((capability) => `+${capability}`).join(',');
  return [
    'setpriv',
    `--reuid=${user.uid}`,
    `--regid=${user.gid}`,
    '--clear-groups',
    '--no-new-privs',
    ...(kept === ''
      ? ['--inh-caps=-all', '--bounding-set=-all']
      : [`--inh-caps=${kept}`, `--ambient-caps=${kept}`]),
  ];
}

/** One host. */
export class Host {
  readonly name: string;
  readonly namespace: string;
  /** A directory of the test for what belongs to this host; removed in the end. */
  readonly directory: string;
  readonly #addresses: ReadonlyMap<string, { readonly ipv4: string; readonly ipv6: string }>;
  readonly #running: Running[] = [];
  readonly #files: string[] = [];

  constructor(
    name: string,
    namespace: string,
    directory: string,
    addresses: ReadonlyMap<string, { readonly ipv4: string; readonly ipv6: string }>,
  ) {
    this.name = name;
    this.namespace = namespace;
    this.directory = directory;
    this.#addresses = addresses;
  }

  /** Its address on a network; by default on its first one. */
  address(family: 'ipv4' | 'ipv6', network?: string): string {
    const found =
      network === undefined ? this.#addresses.values().next().value : this.#addresses.get(network);
    if (found === undefined) throw new Error(`${this.name} does not stand on ${network}`);
    return found[family];
  }

  get ipv4(): string {
    return this.address('ipv4');
  }

  get ipv6(): string {
    return this.address('ipv6');
  }

  /** Programs started here from now on find `source` at this path, for example as their /etc/hosts. */
  useFile(path: string, source: string): void {
    this.#files.push(source, path);
  }

  #wrap(command: readonly string[], options: SpawnOptions): string[] {
    return [
      'nsenter',
      `--net=/run/netns/${this.namespace}`,
      '--',
      ...(this.#files.length === 0
        ? []
        : ['unshare', '--mount', 'sh', '-c', WITH_FILES, `${this.#files.length / 2}`, ...this.#files]),
      ...(options.user === undefined ? [] : asUser(options.user, options.capabilities)),
      ...command,
    ];
  }

  /** Runs a program on this host to its end. */
  exec(command: readonly string[], options: SpawnOptions = {}): Promise<Outcome> {
    return run(this.#wrap(command, options), options);
  }

  /** As {@link exec}, for what has to work; resolves with what it printed. */
  must(command: readonly string[], options: SpawnOptions = {}): Promise<string> {
    return must(this.#wrap(command, options), options);
  }

  /** Starts a program on this host; it is ended with the topology at the latest. */
  spawn(name: string, command: readonly string[], options: SpawnOptions = {}): Running {
    const running = new Running(`${name} on ${this.name}`, this.#wrap(command, options), options);
    this.#running.push(running);
    return running;
  }

  /** Waits until something listens on a port of this host. */
  async listening(port: number, alive?: Running): Promise<void> {
    await waitFor(
      `${this.name} listens on ${port}`,
      async () => (await this.must(['ss', '-Hltn', `sport = :${port}`])).trim() !== '',
      alive === undefined ? {} : { alive },
    );
  }

  /** Ends everything that was started here, in reverse order, also what it forked. */
  async stop(): Promise<void> {
    for (const running of this.#running.reverse()) await running.stop();
    this.#running.length = 0;
    await killAll(this.namespace);
  }
}

/** Hosts and networks of one test. `await using topology = await Topology.create(…)`, or `stop()` in the end. */
export class Topology implements AsyncDisposable {
  readonly directory: string;
  readonly #prefix: string;
  readonly #hosts: ReadonlyMap<string, Host>;
  readonly #mounts: string[] = [];

  private constructor(prefix: string, directory: string, hosts: ReadonlyMap<string, Host>) {
    this.#prefix = prefix;
    this.directory = directory;
    this.#hosts = hosts;
  }

  /** `family`: first part of all names, at most six letters. */
  static async create(family: string, plan: TopologyPlan): Promise<Topology> {
    if (process.getuid?.() !== 0) throw new Error('network namespaces need root');
    await removeStale(family);
    const prefix = `${family}-${process.pid}-`;
    const directory = await mkdtemp(join(tmpdir(), prefix));
    await chmod(directory, 0o755); // servers run as other users
    const hosts = new Map<string, Host>();
    for (const [name, legs] of Object.entries(plan.hosts)) {
      const own = join(directory, name);
      await mkdir(own);
      const addresses = new Map(
        Object.entries(legs).map(([network, last]) => [network, addressOn(plan, network, last)]),
      );
      hosts.set(name, new Host(name, prefix + name, own, addresses));
    }
    const topology = new Topology(prefix, directory, hosts);
    try {
      await topology.#build(plan);
    } catch (error) {
      await topology.stop();
      throw error;
    }
    return topology;
  }

  host(name: string): Host {
    const host = this.#hosts.get(name);
    if (host === undefined) throw new Error(`no host ${name}`);
    return host;
  }

  async #build(plan: TopologyPlan): Promise<void> {
    const namespaces = [...Object.keys(plan.networks), ...Object.keys(plan.hosts)];
    await must(['ip', '-batch', '-'], {
      input: lines(namespaces.map((name) => `netns add ${this.#prefix}${name}`)),
    });
    for (const name of namespaces) {
      // Nobody else can have these addresses: without this the first seconds of every test would be a search for them.
      await this.#sysctl(name, { 'net.ipv6.conf.all.accept_dad': 0, 'net.ipv6.conf.default.accept_dad': 0 });
    }
    for (const [name, network] of Object.entries(plan.networks)) {
      if (network.line !== undefined) continue;
      await this.#ip(name, [
        'link set lo up',
        'link add bridge type bridge forward_delay 0 stp_state 0 mcast_snooping 0',
        'link set bridge up',
        ...(network.router ? addressLines('bridge', addressOn(plan, name, ROUTER)) : []),
      ]);
      if (network.router) {
        await this.#sysctl(name, { 'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1 });
      }
    }
    for (const [name, legs] of Object.entries(plan.hosts)) {
      const commands = ['link set lo up'];
      let routed = false;
      for (const [index, [network, last]] of Object.entries(legs).entries()) {
        const leg = `eth${index}`;
        await this.#ip(name, [
          `link add ${leg} type veth peer name to-${name} netns ${this.#prefix}${network}`,
        ]);
        const attach =
          plan.networks[network]?.line === undefined ? [`link set to-${name} master bridge`] : [];
        await this.#ip(network, [...attach, `link set to-${name} up`]);
        commands.push(...addressLines(leg, addressOn(plan, network, last)), `link set ${leg} up`);
        if (!routed && plan.networks[network]?.router === true) {
          routed = true;
          const router = addressOn(plan, network, ROUTER);
          commands.push(`route add default via ${router.ipv4}`, `route add ::/0 via ${router.ipv6}`);
        }
      }
      await this.#ip(name, commands);
    }
    for (const [name, { line }] of Object.entries(plan.networks))
      if (line !== undefined) await this.#delay(plan, name, line);
  }

  /** A program carries the packets of a long line; it ends with the namespace. */
  async #delay(plan: TopologyPlan, network: string, line: NonNullable<NetworkPlan['line']>): Promise<void> {
    const ends = Object.entries(plan.hosts).filter(([, legs]) => network in legs);
    const running = new Running(`line ${network}`, [
      'nsenter',
      `--net=/run/netns/${this.#prefix}${network}`,
      '--',
      'python3',
      DELAY_LINK,
      ...ends.map(([host]) => `to-${host}`),
      `${line.delayMs}`,
      `${line.bytesPerSecond}`,
    ]);
    await waitFor(`line ${network} is up`, () => running.output.includes('ready'), { alive: running });
  }

  async #sysctl(name: string, values: Readonly<Record<string, number>>): Promise<void> {
    const settings = Object.entries(values).map(([key, value]) => `${key}=${value}`);
    await must(['nsenter', `--net=/run/netns/${this.#prefix}${name}`, '--', 'sysctl', '-qw', ...settings]);
  }

  async #ip(name: string, commands: readonly string[]): Promise<void> {
    await must(['ip', '-n', this.#prefix + name, '-batch', '-'], { input: lines(commands) });
  }

  /** Mounts an empty file system on a directory, so that a test can take it away as a failed mount would. */
  async mount(directory: string, size = '16m'): Promise<void> {
    await must(['mount', '-t', 'tmpfs', '-o', `mode=755,size=${size}`, this.#prefix.slice(0, -1), directory]);
    this.#mounts.push(directory);
  }

  /** Shows a directory of the machine at a second place, read-only. */
  async bind(source: string, directory: string): Promise<void> {
    await must(['mount', '--bind', source, directory]);
    this.#mounts.push(directory);
    await must(['mount', '-o', 'remount,ro,bind', directory]);
  }

  async unmount(directory: string): Promise<void> {
    await must(['umount', '--lazy', directory]);
    this.#mounts.splice(this.#mounts.indexOf(directory), 1);
  }

  /** Ends everything; throws when something is left. */
  async stop(): Promise<void> {
    await Promise.all([...this.#hosts.values()].map((host) => host.stop()));
    for (const directory of [...this.#mounts]) await this.unmount(directory);
    await removeNamespaces(this.#prefix);
    await removeTree(this.directory);
    const left = await namespacesOf(this.#prefix);
    if (left.length > 0) throw new Error(`namespaces left: ${left.join(' ')}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

function addressOn(
  plan: TopologyPlan,
  network: string,
  last: number,
): { readonly ipv4: string; readonly ipv6: string } {
  const found = plan.networks[network];
  if (found === undefined) throw new Error(`no network ${network}`);
  return { ipv4: `${found.ipv4}.${last}`, ipv6: `${found.ipv6}::${last}` };
}

function addressLines(device: string, address: { readonly ipv4: string; readonly ipv6: string }): string[] {
  return [
    `address add ${address.ipv4}/24 dev ${device}`,
    `address add ${address.ipv6}/64 dev ${device} nodad`,
  ];
}

function lines(commands: readonly string[]): string {
  return `${commands.join('\n')}\n`;
}

async function namespacesOf(prefix: string): Promise<string[]> {
  if (!existsSync('/run/netns')) return [];
  return (await readdir('/run/netns')).filter((name) => name.startsWith(prefix));
}

/** Kills, by process id, whatever still runs in a namespace that a test made. */
async function killAll(namespace: string): Promise<void> {
  if (!existsSync(`/run/netns/${namespace}`)) return;
  await waitFor(`nothing runs in ${namespace}`, async () => {
    const pids = (await must(['ip', 'netns', 'pids', namespace])).split('\n').filter((pid) => pid !== '');
    for (const pid of pids) {
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch {
        // it ended by itself meanwhile
      }
    }
    return pids.length === 0;
  });
}

async function removeNamespaces(prefix: string): Promise<void> {
  for (const namespace of await namespacesOf(prefix)) {
    await killAll(namespace);
    await must(['ip', 'netns', 'delete', namespace]);
  }
}

/** Removes what runs that were killed could not remove themselves. */
async function removeStale(family: string): Promise<void> {
  const owner = new RegExp(`^${family}-(\\d+)-`);
  const stale = (name: string): boolean => {
    const pid = owner.exec(name)?.[1];
    return pid !== undefined && !existsSync(`/proc/${pid}`);
  };
  for (const namespace of (await namespacesOf(`${family}-`)).filter(stale)) {
    await killAll(namespace);
    await must(['ip', 'netns', 'delete', namespace]);
  }
  for (const name of (await readdir(tmpdir())).filter(stale)) {
    const directory = join(tmpdir(), name);
    for (const target of await mountsBelow(directory)) await must(['umount', '--lazy', target]);
    await removeTree(directory);
  }
}

async function mountsBelow(directory: string): Promise<string[]> {
  const mounted = await must(['findmnt', '--noheadings', '--list', '--output', 'TARGET']);
  return mounted
    .split('\n')
    .map((line) => line.trim())
    .filter((target) => target.startsWith(`${directory}/`))
    .reverse();
}

/** Removes a directory of a test, but never what is mounted in it: that may be the repository itself. */
async function removeTree(directory: string): Promise<void> {
  const mounted = await mountsBelow(directory);
  if (mounted.length > 0) throw new Error(`still mounted: ${mounted.join(' ')}`);
  await rm(directory, { recursive: true, force: true });
}
