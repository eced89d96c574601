import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { MeshHost } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import type { Host } from '../support/topology.ts';
import {
  BODY,
  DOMAINS,
  dig,
  NamesLab,
  ORDERS4,
  ORDERS6,
  STUB,
  USERS4,
  USERS6,
  verdict,
} from './names-lab.ts';

let lab: NamesLab;
let a: Host;
let b: Host;
let d: Host;
let x: Host;
let mesh: MeshHost;
let other: MeshHost;

beforeAll(async () => {
  lab = await NamesLab.build();
  ({ a, b, d, x } = lab);
  [mesh, other] = lab.agents;
});
afterAll(() => lab?.stop());

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
    expect(await dig(a, `@${d.ipv6}`, 'orders.mesh')).toEqual([`orders.mesh. 5 IN A ${ORDERS4}`]);
    expect(await dig(a, `@${STUB}`, 'orders.mesh')).toEqual([`orders.mesh. 5 IN A ${ORDERS4}`]);
    expect(await dig(a, `@${STUB}`, 'example.test')).toEqual(['example.test. 0 IN A 192.0.2.7']);
    expect(lab.leaked).toEqual([]);
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
    expect(await a.must([...command])).toBe(BODY);
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
    expect(lab.leaked).toEqual([]);
  });

  it('that use a name of their own are taken once it is resolved, and follow it', async () => {
    // Nothing answers at the old address: whoever gets an answer was taken.
    await waitFor('the old address is taken', async () => {
      const outcome = await a.exec(['curl', '-sS', '--max-time', '2', 'http://old.example.test/']);
      return outcome.stdout === BODY;
    });
    await mesh.logged('the old name', ({ destination, service }) => {
      return destination === `${DOMAINS['old.example.test']}:80` && service === 'orders';
    });
    // /etc/hosts counts, as it does for every program.
    await writeFile(join(a.directory, 'hosts'), '127.0.0.1 localhost\n10.93.1.8 old.example.test\n');
    await waitFor('the next address is taken', async () => {
      const outcome = await a.exec(['curl', '-sS', '--max-time', '2', 'http://old.example.test/']);
      return outcome.stdout === BODY;
    });
    await mesh.logged('the name at its next address', ({ destination }) => destination === '10.93.1.8:80');
  });

  it('in a container behind a bridge find names and reach services', async () => {
    for (const server of [d.ipv4, d.ipv6])
      expect(await dig(x, `@${server}`, 'orders.mesh')).toEqual([`orders.mesh. 5 IN A ${ORDERS4}`]);
    for (const family of ['-4', '-6'])
      expect(await x.must(['curl', family, '-sS', '--max-time', '5', 'http://orders.mesh/'])).toBe(BODY);
    expect(lab.leaked).toEqual([]);
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
    for (const server of [d.ipv4, d.ipv6, STUB]) {
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
    expect(lab.leaked).not.toEqual([]);
    await other.running.stop();
  });
});
