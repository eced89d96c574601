import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { addressRange } from '../../src/naming/address-bytes.ts';
import { VirtualAddresses } from '../../src/naming/virtual-addresses.ts';
import { Authority, type CatalogueDocument, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import type { Running } from '../support/process.ts';
import { type Host, Topology } from '../support/topology.ts';

const ZONE = 'dc1';
const BRIDGE = 'mnna0';
/** Names that the resolver of the network knows. */
export const DOMAINS = { 'example.test': '192.0.2.7', 'old.example.test': '10.93.1.9' } as const;
/** The stub resolver of `a`. */
export const STUB = '127.0.0.53';
/** What the service `orders` answers. */
export const BODY = 'orders of b\n';

/** The addresses that every host gives these names: from the names alone. */
function expected(name: string): readonly [ipv4: string, ipv6: string] {
  const addresses = new VirtualAddresses({
    ipv4: addressRange('240.0.0.0/4'),
    ipv6: addressRange('fd6d:6573:6800::/48'),
    reuseAfter: 1,
    changed: () => {},
    exhausted: () => {},
  });
  return addresses.of(name as never) as unknown as readonly [string, string];
}
export const [ORDERS4, ORDERS6] = expected('orders');
export const [USERS4, USERS6] = expected('users.shop');

/** The answer's section as words of each line, sorted. */
export async function dig(host: Host, ...args: readonly string[]): Promise<string[]> {
  const text = await host.must(['dig', '+noall', '+answer', '+time=2', '+tries=2', ...args]);
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(/\s+/).join(' '))
    .sort();
}

/** Status and flags of an answer: `NOERROR qr aa rd ra`. */
export async function verdict(host: Host, ...args: readonly string[]): Promise<string> {
  const text = await host.must(['dig', '+time=2', '+tries=2', ...args]);
  return `${/status: (\w+)/.exec(text)?.[1]} ${/flags: ([a-z ]+);/.exec(text)?.[1]}`;
}

/**
 * `a` calls, `b` serves; both run mesh-node. `d` is the resolver of the network (dnsmasq), and `a` has a stub resolver
 * of its own on loopback, as systemd-resolved is one. `x` is a container of `a`, behind a bridge. `a` has the nft backend of
 * iptables, `b` the legacy one.
 */
export class NamesLab {
  readonly #topology: Topology;
  readonly a: Host;
  readonly b: Host;
  readonly d: Host;
  readonly x: Host;
  readonly #resolvers: readonly [network: Running, stub: Running];
  /** The agents of `a` and `b`. */
  readonly agents: readonly [MeshHost, MeshHost];

  private constructor(
    topology: Topology,
    resolvers: readonly [Running, Running],
    agents: readonly [MeshHost, MeshHost],
  ) {
    this.#topology = topology;
    this.#resolvers = resolvers;
    this.agents = agents;
    const host = (name: string): Host => topology.host(name);
    [this.a, this.b, this.d, this.x] = [host('a'), host('b'), host('d'), host('x')];
  }

  static async build(): Promise<NamesLab> {
    const topology = await Topology.create('mnna', {
      networks: { lan: { ipv4: '10.93.1', ipv6: 'fd93:1', router: true } },
      hosts: { a: { lan: 1 }, b: { lan: 2 }, d: { lan: 3 }, x: {} },
    });
    try {
      const [a, b] = [topology.host('a'), topology.host('b')];
      await connect(topology);
      const resolvers = startResolvers(topology);
      await serve(b);
      return new NamesLab(topology, resolvers, await startAgents(topology, a, b));
    } catch (error) {
      await topology.stop();
      throw error;
    }
  }

  /** Queries for names of the mesh that the resolver of the network has seen, or the stub resolver. */
  get leaked(): readonly string[] {
    return this.#resolvers
      .flatMap(({ output }) => output.split('\n'))
      .filter((line) => /query\[.*mesh/i.test(line));
  }

  stop(): Promise<void> {
    return this.#topology.stop();
  }
}

/** Who asks whom, and the bridge of `a`. */
async function connect(topology: Topology): Promise<void> {
  const [a, b, d, x] = ['a', 'b', 'd', 'x'].map((name) => topology.host(name)) as [Host, Host, Host, Host];
  await Promise.all([
    resolving(a, [d.ipv4, d.ipv6]),
    resolving(b, [d.ipv4]),
    resolving(x, [d.ipv4]),
    a.must([
      ...['sh', '-ec'],
      `ip link add ${BRIDGE} type bridge; ip address add 10.94.0.1/24 dev ${BRIDGE}
       ip address add fd94::1/64 dev ${BRIDGE} nodad; ip link set ${BRIDGE} up
       ip link add to-x type veth peer name eth0 netns ${x.namespace}; ip link set to-x master ${BRIDGE} up
       sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`,
    ]),
  ]);
  await x.must([
    ...['sh', '-ec'],
    `ip link set lo up; ip address add 10.94.0.2/24 dev eth0; ip address add fd94::2/64 dev eth0 nodad; ip link set eth0 up
     ip route add default via 10.94.0.1; ip route add ::/0 via fd94::1`,
  ]);
}

async function resolving(host: Host, servers: readonly string[]): Promise<void> {
  const files = {
    '/etc/resolv.conf': `${servers.map((ip) => `nameserver ${ip}`).join('\n')}\noptions timeout:2 attempts:2\n`,
    '/etc/hosts': '127.0.0.1 localhost\n::1 localhost\n',
    '/etc/nsswitch.conf': 'hosts: files dns\npasswd: files\ngroup: files\n',
  };
  for (const [path, text] of Object.entries(files)) {
    const file = join(host.directory, path.slice('/etc/'.length));
    await writeFile(file, text, { mode: 0o644 });
    host.useFile(path, file);
  }
}

function startResolvers(topology: Topology): readonly [Running, Running] {
  const [a, d] = [topology.host('a'), topology.host('d')];
  const domains = Object.entries(DOMAINS).map(([name, ip]) => `--address=/${name}/${ip}`);
  return [
    dnsmasq(d, [d.ipv4, d.ipv6], [...domains, '--local=/mesh/']),
    dnsmasq(a, [STUB], [`--server=${d.ipv4}`]),
  ];
}

function dnsmasq(host: Host, listen: readonly string[], more: readonly string[]): Running {
  return host.spawn('dnsmasq', [
    ...['dnsmasq', '--keep-in-foreground', '--no-hosts', '--no-resolv', '--log-queries', '--log-facility=-'],
    ...['--user=root', '--bind-interfaces', '--pid-file', ...listen.map((ip) => `--listen-address=${ip}`)],
    ...more,
  ]);
}

async function serve(host: Host): Promise<void> {
  const web = join(host.directory, 'web');
  await mkdir(web);
  await writeFile(join(web, 'index.html'), BODY);
  const server = host.spawn('web', [
    ...['python3', '-m', 'http.server', '80', '--bind', '::', '--directory', web],
  ]);
  await host.listening(80, server);
}

async function startAgents(topology: Topology, a: Host, b: Host): Promise<readonly [MeshHost, MeshHost]> {
  const program = await Program.prepare(topology);
  const authority = await Authority.create(join(topology.directory, 'ca'));
  const catalogue: CatalogueDocument = {
    services: [
      {
        name: 'orders',
        protocol: 'http',
        hosts: ['old.example.test'],
        instances: [b.ipv4, `[${b.ipv6}]`].map((ip) => ({ address: `${ip}:80`, node: 'b', zone: ZONE })),
      },
      { name: 'users.shop', protocol: 'tcp', ports: [5432, 5433], instances: [] },
      { name: 'many', protocol: 'tcp', ports: Array.from({ length: 64 }, (_, i) => 7000 + i), instances: [] },
    ],
    nodes: [a, b].map((host) => ({ name: host.name, zone: ZONE, tunnel: `${host.ipv4}:${TUNNEL_PORT}` })),
  };
  const start = (host: Host, capture: object): Promise<MeshHost> =>
    MeshHost.start(host, program, authority, {
      zone: ZONE,
      grants: { callAs: ['shop'], host: ['orders'] },
      catalogue,
      config: {
        node: { callAs: 'shop' },
        names: { resolveInterval: '500ms' },
        capture,
        // A worker that hangs is not replaced here: somebody else has to answer for it.
        daemon: { workers: 2, hangTimeout: '60s' },
      },
    });
  return await Promise.all([
    start(a, { bridges: [BRIDGE], backend: 'nft' }),
    start(b, { backend: 'legacy' }),
  ]);
}
