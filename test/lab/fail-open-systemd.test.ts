import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ResolveAnswer } from '../../src/admin/api.ts';
import { Authority, type CatalogueDocument, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { nginx } from '../support/servers.ts';
import { at } from '../support/site.ts';
import { SystemdAgent } from '../support/systemd-agent.ts';
import { CLONE, SystemdHost } from '../support/systemd-host.ts';
import { type Host, REPOSITORY, Topology } from '../support/topology.ts';

/*
 * A host with a real systemd, from the agent's death to the next boot without Node. Permissive services are reached by
 * address, by virtual address and by name; strict ones are refused. The tests are one story.
 */

const UNIT = 'mesh-node.service';
const FALLBACK = 'mesh-node-fallback.service';
const DISABLED = '/etc/mesh-node/disabled';
const PORT = 8080;
const STRICT_PORT = 8081;
const DIRECT_WITHIN_MS = 2000;
/** What anything else may take on a busy machine. */
const SLACK_MS = 2000;
const BACK_WITHIN_MS = 30_000;

const families = ['ipv4', 'ipv6'] as const;

let topology: Topology;
let machine: SystemdHost;
let a: Host;
let b: Host;
let far: MeshHost;
let agent: SystemdAgent;
let virtual: Readonly<Record<'orders' | 'vault', readonly string[]>>;

beforeAll(async () => {
  topology = await Topology.create('mnfd', {
    networks: { lan: { ipv4: '10.93.1', ipv6: 'fd93:1', router: true } },
    hosts: { a: { lan: 1 }, b: { lan: 2 } },
  });
  a = topology.host('a');
  b = topology.host('b');
  machine = await SystemdHost.boot(topology, 'a');
  await Promise.all([PORT, STRICT_PORT].map((port) => nginx(b, port, 'b')));
  const program = await Program.prepare(topology);
  const authority = await Authority.create(join(topology.directory, 'ca'));
  const catalogue: CatalogueDocument = {
    services: (
      [
        ['orders', PORT, 'permissive'],
        ['vault', STRICT_PORT, 'strict'],
      ] as const
    ).map(([name, port, mode]) => ({
      name,
      mode,
      protocol: 'tcp',
      instances: families.map((family) => ({ address: at(b.address(family), port), node: 'b' })),
    })),
    nodes: ['a', 'b'].map((name) => ({
      name,
      zone: 'default',
      tunnel: at(topology.host(name).ipv4, TUNNEL_PORT),
    })),
  };
  const hosted = { host: ['orders', 'vault'] };
  far = await MeshHost.start(b, program, authority, { zone: 'default', grants: hosted, catalogue });
  // A resolver that answers nothing: names of the domain never get there.
  await machine.write('/etc/resolv.conf', `nameserver ${b.ipv4}\noptions timeout:1 attempts:1\n`);
  agent = await SystemdAgent.start(machine, authority, { grants: { callAs: ['shop'] }, catalogue });
  // The unit of the boot needs no more than this script, and needs it before anything else is there.
  const script = `${CLONE}/systemd`;
  const parts = ['withdraw-rules', 'unattended-rules', 'unattended-rules.awk'].map(
    (name) => `${script}/${name}`,
  );
  await machine.must(['cp', '--remove-destination', ...parts, '/usr/lib/mesh-node/']);
  await machine.must(['systemctl', 'enable', UNIT]);
  virtual = { orders: await virtualOf('orders'), vault: await virtualOf('vault') };
});
afterAll(async () => {
  await machine?.powerOff();
  await far?.stop();
  await topology.stop();
});

async function virtualOf(name: string): Promise<readonly string[]> {
  const said = await machine.must(['mesh-node', 'resolve', name, '-o', 'json']);
  return (JSON.parse(said) as ResolveAnswer).services[0]?.virtual ?? [];
}

/** How a caller on the machine got there: who the server saw, or how it failed (7: refused, 6: no such name). */
async function call(host: string, port = PORT): Promise<'mesh' | 'direct' | `curl ${number}`> {
  const url = `http://${host.includes('.') ? `${host}:${port}` : at(host, port)}/`;
  const { code, stdout } = await machine.exec(['curl', '-gsS', '--max-time', '1', url]);
  if (code !== 0) return `curl ${code}`;
  return families.some((family) => stdout === `b ${a.address(family)}\n`) ? 'direct' : 'mesh';
}

const waysTo = (name: 'orders' | 'vault'): readonly string[] => [
  ...families.map((family) => b.address(family)),
  ...virtual[name],
  `${name}.mesh`,
];

async function everythingBy(way: 'mesh' | 'direct', timeoutMs = BACK_WITHIN_MS): Promise<void> {
  await Promise.all(
    waysTo('orders').map((host) =>
      waitFor(`${host} is reached: ${way}`, async () => (await call(host)) === way, {
        timeoutMs,
        intervalMs: 20,
      }),
    ),
  );
}

/** Every way to the permissive service leads there directly within the bound; what it took is printed. */
async function soonDirect(what: string, since: number): Promise<void> {
  await everythingBy('direct');
  const took = Math.round(performance.now() - since);
  console.log(`${what}: by address, virtual address and name after ${took} ms`);
  expect(took).toBeLessThan(DIRECT_WITHIN_MS + SLACK_MS);
}

async function strictIs(way: string): Promise<void> {
  for (const host of waysTo('vault')) expect(await call(host, STRICT_PORT), host).toBe(way);
}

const hostsFile = (): Promise<string> => machine.must(['cat', '/etc/hosts']);

/** A power cut: what the kernel held is gone. The network namespace of the test outlives the machine. */
async function reboot(): Promise<void> {
  await machine.powerOff();
  const env = {
    MESH_NODE_DAEMON_STATE_DIRECTORY: '/nowhere',
    WITHDRAW_HOSTS: '/nowhere',
  };
  await a.must([join(REPOSITORY, 'systemd/withdraw-rules'), '--remove'], { env });
  await machine.boot();
}

test('the agent runs: everything through the mesh, also by name', async () => {
  await everythingBy('mesh');
  await strictIs('mesh');
  expect(await machine.must(['getent', 'ahostsv4', 'orders.mesh'])).toContain(virtual.orders[0]);
  expect(await hostsFile()).not.toContain('.mesh');
  await waitFor(
    'what holds without it is written down',
    async () =>
      (await machine.exec(['grep', '-q', 'vault.mesh', '/var/lib/mesh-node/fallback/hosts'])).code === 0,
  );
});

test('killed as a whole, and Node cannot be started: direct', async () => {
  await machine.must(['bash', '-c', 'mount --bind /dev/null "$(readlink -f "$0")"', process.execPath]);
  const began = performance.now();
  await machine.must(['systemctl', 'kill', '--kill-whom=all', '--signal=KILL', UNIT]);
  await soonDirect('killed, no Node', began);
  await strictIs('curl 7');
  expect(await machine.must(['getent', 'ahostsv4', 'orders.mesh'])).toContain(virtual.orders[0]);
});

test('it fails to start again and again: what holds goes on holding', async () => {
  const restarts = async (): Promise<number> => Number(await machine.show(UNIT, 'NRestarts'));
  const before = await restarts();
  await waitFor('it was tried a few times', async () => (await restarts()) > before + 2, {
    timeoutMs: 60_000,
  });
  await everythingBy('direct', DIRECT_WITHIN_MS + SLACK_MS);
  await strictIs('curl 7');
  expect((await hostsFile()).match(/ orders\.mesh$/gm)).toHaveLength(2);
});

test('Node is there again: the agent comes back, and its names leave the hosts file', async () => {
  await machine.must(['bash', '-c', 'umount "$(readlink -f "$0")"', process.execPath]);
  await everythingBy('mesh');
  await strictIs('mesh');
  await waitFor('the hosts file is as it was', async () => !(await hostsFile()).includes('mesh'));
});

test('stopped: direct, strict refused', async () => {
  const began = performance.now();
  await machine.must(['systemctl', 'stop', UNIT]);
  await soonDirect('stopped', began);
  await strictIs('curl 7');
});

test('disabled, and booted: it runs and does not intercept', async () => {
  await machine.must(['touch', DISABLED]);
  await reboot();
  await machine.waitActive(UNIT);
  await agent.ready();
  await everythingBy('direct');
  await strictIs('curl 7');
  const { stdout } = await machine.exec(['mesh-node', 'bypass', 'status', '-o', 'json']);
  expect(JSON.parse(stdout)).toMatchObject({
    bypass: 'on',
    interception: 'withdrawn',
    suspensions: ['disabled'],
  });
  await machine.must(['mesh-node', 'bypass', 'off']);
  await everythingBy('mesh');
  await strictIs('mesh');
});

test('booted without Node: what holds without the agent holds from the beginning', async () => {
  await machine.must(['rm', '/usr/bin/mesh-node']);
  await reboot();
  expect(await machine.show(FALLBACK, 'ActiveState')).toBe('active');
  expect(await machine.show(FALLBACK, 'Result')).toBe('success');
  await everythingBy('direct', DIRECT_WITHIN_MS + SLACK_MS);
  await strictIs('curl 7');
});
