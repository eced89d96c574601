import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addressRange } from '../../src/naming/address-bytes.ts';
import { VirtualAddresses } from '../../src/naming/virtual-addresses.ts';
import { Authority, type CatalogueDocument, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { type Running, waitFor } from '../support/process.ts';
import { type Host, Topology } from '../support/topology.ts';

/*
 * `a` calls, `b` serves; both run mesh-node. `d` is the resolver of the network (dnsmasq), and `a` has a stub resolver
 * of its own on loopback, as systemd-resolved is one. `x` is a container of `a`, behind a bridge. `a` has the nft backend of
 * iptables, `b` the legacy one.
 */

const ZONE = 'dc1';
const DOMAINS = { 'example.test': '192.0.2.7', 'old.example.test': '10.93.1.9' } as const;
const STUB = '127.0.0.53';
const BRIDGE = 'mnna0';

let topology: Topology;
let a: Host;
let b: Host;
let x: Host;
let mesh: MeshHost;
let other: MeshHost;
let resolver: Running;
let stub: Running;

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
const [ORDERS4, ORDERS6] = expected('orders');
const [USERS4, USERS6] = expected('users.shop');

function dnsmasq(host: Host, listen: readonly string[], more: readonly string[]): Running {
  return host.spawn('dnsmasq', [
    ...['dnsmasq', '--keep-in-foreground', '--no-hosts', '--no-resolv', '--log-queries', '--log-facility=-'],
    ...['--user=root', '--bind-interfaces', '--pid-file', ...listen.map((ip) => `--listen-address=${ip}`)],
    ...more,
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

/** The answer's section as words of each line, sorted. */
async function dig(host: Host, ...args: readonly string[]): Promise<string[]> {
  const text = await host.must(['dig', '+noall', '+answer', '+time=2', '+tries=2', ...args]);
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(/\s+/).join(' '))
    .sort();
}

/** Status and flags of an answer: `NOERROR qr aa rd ra`. */
async function verdict(host: Host, ...args: readonly string[]): Promise<string> {
  const text = await host.must(['dig', '+time=2', '+tries=2', ...args]);
  return `${/status: (\w+)/.exec(text)?.[1]} ${/flags: ([a-z ]+);/.exec(text)?.[1]}`;
}

/** Queries for names of the mesh that a resolver of others has seen. */
const leaked = (...resolvers: readonly Running[]) =>
  resolvers.flatMap(({ output }) => output.split('\n')).filter((line) => /query\[.*mesh/i.test(line));

beforeAll(async () => {
  topology = await Topology.create('mnna', {
    networks: { lan: { ipv4: '10.93.1', ipv6: 'fd93:1', router: true } },
    hosts: { a: { lan: 1 }, b: { lan: 2 }, d: { lan: 3 }, x: {} },
  });
  [a, b, x] = [topology.host('a'), topology.host('b'), topology.host('x')];
  const d = topology.host('d');
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
  resolver = dnsmasq(
    d,
    [d.ipv4, d.ipv6],
    [...Object.entries(DOMAINS).map(([name, ip]) => `--address=/${name}/${ip}`), '--local=/mesh/'],
  );
  stub = dnsmasq(a, [STUB], [`--server=${d.ipv4}`]);
  const web = join(b.directory, 'web');
  await mkdir(web);
  await writeFile(join(web, 'index.html'), 'orders of b\n');
  const server = b.spawn('web', ['python3', '-m', 'http.server', '80', '--bind', '::', '--directory', web]);
  await b.listening(80, server);

  const program = await Program.prepare(topology);
  const authority = await Authority.create(program, join(topology.directory, 'ca'));
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
  [mesh, other] = (await Promise.all(
    [a, b].map((host) =>
      MeshHost.start(host, program, authority, {
        zone: ZONE,
        grants: { callAs: ['shop'], host: ['orders'] },
        catalogue,
        config: {
          node: { callAs: 'shop' },
          names: { resolveInterval: '500ms' },
          capture: host === a ? { bridges: [BRIDGE], backend: 'nft' } : { backend: 'legacy' },
          // A worker that hangs is not replaced here: somebody else has to answer for it.
          daemon: { workers: 2, hangTimeout: '60s' },
        },
      }),
    ),
  )) as [MeshHost, MeshHost];
});
afterAll(() => topology?.stop());

describe('dig', () => {
  it('is told addresses and ports, and everybody else is asked for everything else', async () => {
    expect(await dig(a, 'orders.mesh', 'A')).toEqual([`orders.mesh. 5 IN A ${ORDERS4}`]);
    expect(await dig(a, 'orders.mesh', 'AAAA')).toEqual([`orders.mesh. 5 IN AAAA ${ORDERS6}`]);
    expect(await dig(a, 'OrDeRs.MESH', 'A')).toEqual([`OrDeRs.MESH. 5 IN A ${ORDERS4}`]);
    expect(await dig(a, '_http._tcp.orders.mesh', 'SRV')).toEqual([
      '_http._tcp.orders.mesh. 5 IN SRV 0 0 80 orders.mesh.',
    ]);
    expect(await dig(a, 'users.shop.mesh', 'SRV')).toEqual([
      'users.shop.mesh. 5 IN SRV 0 0 5432 users.shop.mesh.',
      'users.shop.mesh. 5 IN SRV 0 0 5433 users.shop.mesh.',
    ]);
    expect(await dig(a, 'users.shop.mesh', 'ANY', '+notcp')).toEqual([
      `users.shop.mesh. 5 IN A ${USERS4}`,
      `users.shop.mesh. 5 IN AAAA ${USERS6}`,
      'users.shop.mesh. 5 IN SRV 0 0 5432 users.shop.mesh.',
      'users.shop.mesh. 5 IN SRV 0 0 5433 users.shop.mesh.',
    ]);
    expect(await verdict(a, 'nobody.mesh')).toBe('NXDOMAIN qr aa rd ra');
    expect(await verdict(a, 'shop.mesh')).toBe('NOERROR qr aa rd ra');
    expect(await verdict(a, 'orders.mesh', 'MX')).toBe('NOERROR qr aa rd ra');
    expect(await dig(a, 'example.test')).toEqual(['example.test. 0 IN A 192.0.2.7']);
    expect(await verdict(a, 'nobody.example.test.')).toMatch(/^(REFUSED|NXDOMAIN|NOERROR)/);
    // The other server of the network, over IPv6, and a stub resolver on loopback: they never see it either.
    const d = topology.host('d');
    expect(await dig(a, `@${d.ipv6}`, 'orders.mesh')).toEqual([`orders.mesh. 5 IN A ${ORDERS4}`]);
    expect(await dig(a, `@${STUB}`, 'orders.mesh')).toEqual([`orders.mesh. 5 IN A ${ORDERS4}`]);
    expect(await dig(a, `@${STUB}`, 'example.test')).toEqual(['example.test. 0 IN A 192.0.2.7']);
    expect(leaked(resolver, stub)).toEqual([]);
  });

  it('is told over TCP what a datagram does not hold', async () => {
    const at = ['@127.0.0.1', '-p', '15053'];
    expect(await verdict(a, ...at, '+ignore', 'many.mesh', 'SRV')).toBe('NOERROR qr aa tc rd ra');
    expect(await dig(a, ...at, 'many.mesh', 'SRV')).toHaveLength(64);
    expect(await dig(a, '@::1', '-p', '15053', '+tcp', 'orders.mesh')).toEqual([
      `orders.mesh. 5 IN A ${ORDERS4}`,
    ]);
    expect(await dig(a, ...at, '-x', ORDERS4)).toEqual([expect.stringContaining('PTR orders.mesh.')]);
    expect(await dig(a, ...at, '-x', ORDERS6)).toEqual([expect.stringContaining('PTR orders.mesh.')]);
  });

  it('finds the same address on every host, and in what the command line prints', async () => {
    expect(await dig(b, 'users.shop.mesh')).toEqual([`users.shop.mesh. 5 IN A ${USERS4}`]);
    const { stdout, stderr } = await mesh.cli(['resolve', 'orders']);
    expect(stdout + stderr).toContain(ORDERS4);
    expect((await mesh.cli(['resolve', `${ORDERS4}:80`])).stdout).toContain('the address means the service');
    const rules = (await mesh.cli(['rules', 'print'])).stdout;
    for (const ip of [ORDERS4, ORDERS6, DOMAINS['old.example.test']])
      expect(rules).toContain(` ${ip},tcp:80`);
  });
});

describe('programs', () => {
  const body = 'orders of b\n';
  const FETCH = `process.stdout.write(await (await fetch('http://orders.mesh/')).text())`;
  const PYTHON = `import urllib.request; print(urllib.request.urlopen('http://orders.mesh/').read().decode(), end='')`;

  it.each<readonly [string, readonly string[]]>([
    ['curl, which tries both families', ['curl', '-sS', 'http://orders.mesh/']],
    ['curl over IPv4', ['curl', '-4', '-sS', 'http://orders.mesh/']],
    ['curl over IPv6', ['curl', '-6', '-sS', 'http://orders.mesh/']],
    ['curl at an address', ['curl', '-sS', `http://[${ORDERS6}]/`]],
    ['wget', ['wget', '-q', '-O', '-', 'http://orders.mesh/']],
    ['python', ['python3', '-c', PYTHON]],
    ['node', [process.execPath, '--input-type=module', '-e', FETCH]],
  ])('%s', async (_what, command) => {
    expect(await a.must([...command])).toBe(body);
  });

  it('find both families by getaddrinfo, and the connection is written down with its virtual address', async () => {
    const found = await a.must(['getent', 'ahosts', 'orders.mesh']);
    const addresses = new Set(found.split('\n').flatMap((line) => line.split(/\s+/)[0] || []));
    expect(addresses).toEqual(new Set([ORDERS4, ORDERS6]));
    await mesh.logged('IPv4', (line) => line.destination === `${ORDERS4}:80` && line.service === 'orders');
    await mesh.logged('IPv6', (line) => line.destination === `[${ORDERS6}]:80` && line.reason === 'done');
  });

  it('that ask both on one socket get the right answer to each', async () => {
    const script = `
import socket, struct, sys
def ask(name, i):
    labels = b''.join(bytes([len(l)]) + l.encode() for l in name.split('.'))
    return struct.pack('>HHHHHH', i, 0x100, 1, 0, 0, 0) + labels + b'\\0' + struct.pack('>HH', 1, 1)
for server in sys.argv[1:]:
    s = socket.socket(socket.AF_INET6 if ':' in server else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(3); s.connect((server, 53))
    for i, name in enumerate(['example.test', 'orders.mesh', 'example.test', 'ORDERS.Mesh']):
        s.send(ask(name, i)); print(socket.inet_ntoa(s.recv(2000)[-4:]))
`;
    const d = topology.host('d');
    for (const [host, servers] of [
      [a, [d.ipv4, d.ipv6, STUB]],
      [b, [d.ipv4, d.ipv6]],
    ] as const) {
      const answers = (await host.must(['python3', '-c', script, ...servers])).trim().split('\n');
      expect(answers).toEqual(servers.flatMap(() => ['192.0.2.7', ORDERS4, '192.0.2.7', ORDERS4]));
    }
    // c-ares asks all that is open on one socket for each server.
    const node = `
      import { Resolver } from 'node:dns/promises';
      const resolver = new Resolver();
      resolver.setServers([process.argv[1]]);
      const names = ['example.test', 'orders.mesh', 'example.test', 'users.shop.mesh'];
      const answers = await Promise.all(names.map((name) => resolver.resolve4(name)));
      console.log(answers.flat().join(' '));`;
    for (const server of [d.ipv4, `[${d.ipv6}]`]) {
      expect(await a.must([process.execPath, '--input-type=module', '-e', node, server])).toBe(
        `192.0.2.7 ${ORDERS4} 192.0.2.7 ${USERS4}\n`,
      );
    }
    expect(leaked(resolver, stub)).toEqual([]);
  });

  it('that use a name of their own are taken once it is resolved, and follow it', async () => {
    // Nothing answers at the old address: whoever gets an answer was taken.
    await waitFor('the old address is taken', async () => {
      const outcome = await a.exec(['curl', '-sS', '--max-time', '2', 'http://old.example.test/']);
      return outcome.stdout === body;
    });
    await mesh.logged('the old name', ({ destination, service }) => {
      return destination === `${DOMAINS['old.example.test']}:80` && service === 'orders';
    });
    // /etc/hosts counts, as it does for every program.
    await writeFile(join(a.directory, 'hosts'), '127.0.0.1 localhost\n10.93.1.8 old.example.test\n');
    await waitFor('the next address is taken', async () => {
      const outcome = await a.exec(['curl', '-sS', '--max-time', '2', 'http://old.example.test/']);
      return outcome.stdout === body;
    });
    await mesh.logged('the name at its next address', ({ destination }) => destination === '10.93.1.8:80');
  });

  it('in a container behind a bridge find names and reach services', async () => {
    const d = topology.host('d');
    for (const server of [d.ipv4, d.ipv6])
      expect(await dig(x, `@${server}`, 'orders.mesh')).toEqual([`orders.mesh. 5 IN A ${ORDERS4}`]);
    for (const family of ['-4', '-6'])
      expect(await x.must(['curl', family, '-sS', '--max-time', '5', 'http://orders.mesh/'])).toBe(body);
    expect(leaked(resolver, stub)).toEqual([]);
  });
});

describe('while nobody answers', () => {
  const signal = (pids: readonly number[], name: NodeJS.Signals) => {
    for (const pid of pids) process.kill(pid, name);
  };
  const others = async (): Promise<void> => {
    expect(await dig(a, 'example.test')).toEqual(['example.test. 0 IN A 192.0.2.7']);
    expect(await dig(a, `@${STUB}`, 'example.test')).toEqual(['example.test. 0 IN A 192.0.2.7']);
    expect((await a.must(['getent', 'ahostsv4', 'example.test'])).split(/\s+/)[0]).toBe('192.0.2.7');
  };

  it('one of two workers is stopped: the other one answers all', async () => {
    const [stopped] = await mesh.workers();
    signal([stopped!], 'SIGSTOP');
    try {
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => a.exec(['dig', '+short', '+time=5', '+tries=1', 'orders.mesh'])),
      );
      expect(new Set(answers.map(({ stdout }) => stdout.trim()))).toEqual(new Set([ORDERS4]));
    } finally {
      signal([stopped!], 'SIGCONT');
    }
  });

  it('all workers are stopped: the supervisor answers, until they are back', async () => {
    const workers = await mesh.workers();
    signal(workers, 'SIGSTOP');
    try {
      await waitFor('the supervisor answers', async () => {
        const found = await a.exec(['dig', '+short', '+time=1', '+tries=1', 'orders.mesh']);
        return found.stdout.trim() === ORDERS4;
      });
      expect(await verdict(a, 'nobody.mesh')).toBe('NXDOMAIN qr aa rd ra');
    } finally {
      signal(workers, 'SIGCONT');
    }
    await waitFor('workers answer all', async () => {
      const before = await mesh.metric('mesh_node_name_answers_total', 'code="NOERROR"');
      for (let i = 0; i < 5; i++) await dig(a, 'orders.mesh');
      return (await mesh.metric('mesh_node_name_answers_total', 'code="NOERROR"')) >= before + 5;
    });
  });

  it('the whole agent is stopped: all other names resolve', async () => {
    const all = [mesh.running.pid, ...(await mesh.workers())];
    signal(all, 'SIGSTOP');
    try {
      await others();
    } finally {
      signal(all, 'SIGCONT');
    }
    await waitFor('names are answered', async () => (await dig(a, 'orders.mesh')).length === 1);
  });

  it('the agent is gone: all other names resolve; the next one gives the same addresses', async () => {
    const file = join(mesh.directory, 'state/virtual-addresses');
    await waitFor('addresses are written down', async () => {
      const text = await readFile(file, 'latin1').catch(() => '');
      return text.includes('users.shop');
    });
    const all = [mesh.running.pid, ...(await mesh.workers())];
    signal(all, 'SIGKILL');
    await mesh.running.ended;
    await others();
    // Nothing listens where the queries go: they are refused at once, and nobody waits.
    for (const server of [topology.host('d').ipv4, topology.host('d').ipv6, STUB]) {
      const { code, stdout } = await a.exec(['dig', `@${server}`, '+time=5', '+tries=1', 'orders.mesh']);
      expect({ code, stdout }).toMatchObject({
        code: 9,
        stdout: expect.stringContaining('connection refused'),
      });
    }
    await mesh.start();
    expect(await dig(a, 'orders.mesh')).toEqual([`orders.mesh. 5 IN A ${ORDERS4}`]);
  });

  it('the agent has ended: the domain is a name like any other', async () => {
    await mesh.running.stop();
    await others();
    expect(await verdict(a, 'orders.mesh')).toMatch(/^NXDOMAIN qr/);
    expect(leaked(resolver)).not.toEqual([]);
    await other.running.stop();
  });
});
