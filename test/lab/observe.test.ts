import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ObserveAnswer, ObservedCalls } from '../../src/admin/api.ts';
import { isDestination, parseAllowList } from '../../src/capture/allow-list.ts';
import { coverage } from '../../src/capture/proposal.ts';
import { endpointKey, parseEndpoint } from '../../src/model/address.ts';
import type { MeshHost } from '../support/mesh.ts';
import { MeshHost as Agent, Authority, Program } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { at } from '../support/site.ts';
import { type Host, NOBODY, Topology, type User } from '../support/topology.ts';
import { trafficServer } from '../support/traffic.ts';

/*
 * Mode observe: nothing is redirected, and the agent knows who calls whom. One host that calls, one that serves; the
 * tests are one story.
 */

const families = ['ipv4', 'ipv6'] as const;
const SERVICE = 7000;
const OTHER = 7001;
/** More than the socket holds of connections that nobody reads. */
const BURST = 6000;
/** Addresses of the serving host beside its own, as of a group of replicas. */
const REPLICAS = [11, 12, 13];

const CONNECT = `
import socket, sys
for _ in range(int(sys.argv[3])):
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as connection:
        print(connection.getsockname()[1])
`;
const REFUSED = `
import socket, sys
refused = 0
for _ in range(int(sys.argv[3])):
    connection = socket.socket(socket.AF_INET)
    refused += connection.connect_ex((sys.argv[1], int(sys.argv[2]))) == 111
    connection.close()
print(refused)
`;

/** Takes NFLOG group 77, as a packet logger would: one CONFIG message with the command BIND. */
const TAKE_GROUP = `
import socket, struct, time
group = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
command = struct.pack('=HHB3x', 5, 1, 1)
message = struct.pack('=HHII', 0x401, 5, 1, 0) + struct.pack('!BBH', 0, 0, 77) + command
group.send(struct.pack('=I', 4 + len(message)) + message)
assert struct.unpack_from('=i', group.recv(4096), 16)[0] == 0
print('taken', flush=True)
time.sleep(600)
`;

let topology: Topology;
let a: Host;
let b: Host;
let mesh: MeshHost;

beforeAll(async () => {
  topology = await Topology.create('mnob', {
    networks: {
      lan: { ipv4: '10.96.1', ipv6: 'fd96:1', router: false },
      inner: { ipv4: '10.96.2', ipv6: 'fd96:2', router: false },
    },
    // To a, c is what a container is: behind an interface of its own.
    hosts: { a: { lan: 1, inner: 1 }, b: { lan: 2 }, c: { inner: 2 } },
  });
  [a, b] = [topology.host('a'), topology.host('b')];
  for (const last of REPLICAS) await b.must(['ip', 'address', 'add', `10.96.1.${last}/24`, 'dev', 'eth0']);
  await Promise.all([trafficServer(b, SERVICE), trafficServer(b, OTHER)]);
  const program = await Program.prepare(topology);
  const authority = await Authority.create(`${topology.directory}/ca`);
  mesh = await Agent.start(a, program, authority, {
    zone: 'dc1',
    grants: { callAs: ['shop'] },
    config: {
      capture: { mode: 'observe', reassertInterval: '1s', bridges: ['eth1'] },
      node: { callAs: 'shop' },
    },
    allowList: ['192.0.2.1'],
    catalogue: {
      services: [
        {
          name: 'orders',
          instances: families.map((family) => ({ address: at(b.address(family), SERVICE) })),
        },
      ],
    },
  });
});
afterAll(() => topology.stop());

/** Connects again and again; the local ports. */
async function connect(to: string, port: number, count: number, user?: User): Promise<string[]> {
  const text = await a.must(
    ['/usr/bin/python3', '-c', CONNECT, to, String(port), String(count)],
    user && { user },
  );
  return text.trim().split('\n');
}

async function observed(): Promise<ObserveAnswer> {
  const { stdout, stderr, code } = await mesh.cli(['observe', '-o', 'json', '--limit', '1000']);
  expect([code, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as ObserveAnswer;
}

const countOf = ({ calls }: ObserveAnswer, caller: string, where: Partial<ObservedCalls>): number =>
  calls.find(
    (one) => one.caller === caller && one.service === where.service && one.destination === where.destination,
  )?.count ?? 0;

test('who calls whom is known, by service where there is one, and nobody is touched', async () => {
  for (const family of families) {
    await connect(b.address(family), SERVICE, 3);
    await connect(b.address(family), OTHER, 2, NOBODY);
  }
  await connect('127.0.0.1', 15_090, 1);
  const other = families.map((family) => at(b.address(family), OTHER));
  const answer = await waitFor('all are seen', async () => {
    const now = await observed();
    return now.seen >= 10 && now;
  });
  expect(answer).toMatchObject({
    recording: true,
    mode: 'observe',
    seen: 10,
    lost: 0,
    forgotten: 0,
    total: 3,
  });
  expect(countOf(answer, 'user:root', { service: 'orders' })).toBe(6);
  for (const destination of other) expect(countOf(answer, 'user:nobody', { destination })).toBe(2);
  expect(await mesh.accessLog()).toEqual([]);
  const nat =
    (await a.must(['iptables-save', '-t', 'nat'])) + (await a.must(['ip6tables-save', '-t', 'nat']));
  expect(nat).not.toMatch(/-p tcp .*-j REDIRECT/);
  const { stdout } = await mesh.cli(['observe']);
  expect(stdout).toMatch(/^user:root +orders +- +6 .* service$/m);
  expect(await mesh.metric('mesh_node_observed_connections_total')).toBe(10);
  expect(await mesh.metric('mesh_node_observed_pairs')).toBe(4);
});

test('the allow-list that it proposes covers what is no service, and nothing of a service', async () => {
  for (const last of REPLICAS) await connect(`10.96.1.${last}`, OTHER, 1);
  // The same network and port as a service: each address for itself.
  for (const last of REPLICAS) await connect(`10.96.1.${last}`, SERVICE, 1);
  await waitFor('all are seen', async () => (await observed()).seen >= 16);
  const { stdout: proposal } = await mesh.cli(['observe', '--propose']);
  const { entries, problems } = parseAllowList(proposal);
  expect(problems).toEqual([]);
  expect(proposal).toContain('\n10.96.1.0/24:7001\n');
  expect(proposal).toContain('# 5 connections: user:root (3), user:nobody (2)\n');
  const covers = coverage(entries.filter(isDestination));
  const key = (text: string) => endpointKey(parseEndpoint(text)!);
  for (const last of REPLICAS) expect(covers(key(`10.96.1.${last}:${SERVICE}`))).toBe(true);
  for (const family of families) {
    expect(covers(key(at(b.address(family), OTHER)))).toBe(true);
    expect(covers(key(at(b.address(family), SERVICE)))).toBe(false);
  }
  await mesh.writeAllowList(proposal.split('\n'));
  await waitFor(
    'nothing more is proposed',
    async () => (await mesh.cli(['observe', '--propose'])).stdout === '',
  );
  const { calls } = await observed();
  expect(calls.filter(({ allowed, service }) => !allowed && service === undefined)).toEqual([]);
});

test('what comes over a bridge is seen, too', async () => {
  const c = topology.host('c');
  await a.must(['sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
  for (const family of families) {
    const gateway = (host: Host) => ['via', a.address(family, host === c ? 'inner' : 'lan')];
    await c.must(['ip', 'route', 'add', b.address(family), ...gateway(c)]);
    await b.must(['ip', 'route', 'add', c.address(family), ...gateway(b)]);
    await c.must(['/usr/bin/python3', '-c', CONNECT, b.address(family), String(SERVICE), '2']);
  }
  await waitFor(
    'both families are seen',
    async () => countOf(await observed(), 'unknown', { service: 'orders' }) === 4,
  );
});

test('it is kept over a restart', async () => {
  const before = await observed();
  expect(await mesh.stop()).toBe(0);
  await mesh.start();
  const after = await observed();
  expect(after.calls).toEqual(before.calls);
  expect(after.seen, 'since the start').toBe(0);
});

test('what is too much at once is lost and counted, and no connection fails', async () => {
  const closed = [a.ipv4, '9', String(BURST)];
  mesh.running.kill('SIGSTOP');
  const refused = await a
    .must(['/usr/bin/python3', '-c', REFUSED, ...closed], { timeoutMs: 60_000 })
    .finally(() => {
      mesh.running.kill('SIGCONT');
    });
  expect(Number(refused), 'every one of them had its answer at once').toBe(BURST);
  // Numbers tell of a gap with the next packet that arrives.
  await waitFor('what was read and what was not', async () => {
    await connect(b.ipv4, OTHER, 1);
    const { seen, lost } = await observed();
    return lost > 0 && seen + lost >= BURST;
  });
  const { seen, lost } = await observed();
  expect(seen).toBeGreaterThan(1000);
  console.log(`of ${BURST} connections while nobody read ${lost} were not seen`);
  expect((await mesh.cli(['observe'])).stdout).toMatch(
    /^\d+ connections were not seen: there were too many at once$/m,
  );
  expect(await mesh.metric('mesh_node_observed_lost_total')).toBe(lost);
});

test('a group that another program has is said, and observing goes on once it is free', async () => {
  const config = JSON.parse(await a.must(['cat', mesh.configFile])) as { capture: Record<string, unknown> };
  const reload = async (capture: object) => {
    await a.must(['tee', mesh.configFile], {
      input: JSON.stringify({ ...config, capture: { ...config.capture, ...capture } }),
    });
    await mesh.reload();
  };
  // The same group twice: this program is the other one.
  const taken = a.spawn('group', ['/usr/bin/python3', '-c', TAKE_GROUP]);
  await waitFor('the group is taken', () => taken.output.includes('taken'), { alive: taken });
  await reload({ observeGroup: 77 });
  const { recording, problem } = await observed();
  expect([recording, problem]).toEqual([
    false,
    expect.stringMatching(/^NFLOG group: EPERM \(77: taken by another/),
  ]);
  await taken.stop();
  await reload({ observeGroup: 77, percent: 99 });
  await connect(b.ipv4, OTHER, 1);
  await waitFor('it is seen', async () => (await observed()).recording);
  await reload({ mode: 'services' });
  expect(await observed()).toMatchObject({ recording: false, mode: 'services' });
  const mangle = await a.must(['iptables-save', '-t', 'mangle']);
  expect(mangle).not.toContain('NFLOG');
  await connect(b.ipv4, SERVICE, 1);
  await mesh.logged('an orders connection', ({ service }) => service === 'orders');
});
