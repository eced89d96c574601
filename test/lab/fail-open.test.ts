import { chown, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ResolveAnswer, RulesAnswer } from '../../src/admin/api.ts';
import { Authority, type CatalogueDocument, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { nginx } from '../support/servers.ts';
import { at } from '../support/site.ts';
import { type Host, REPOSITORY, Topology } from '../support/topology.ts';

/*
 * Whatever becomes of the agent of a host: permissive services are reached, directly if need be, by address and by virtual
 * address; strict ones are never reached without it. No service manager here: what helps is the kernel, the supervisor,
 * and the script that a service manager would run.
 */

const PORT = 8080;
const STRICT_PORT = 8081;
/** What callers may lose by an agent that is gone or hung, and what anything else may take on a busy machine. */
const DIRECT_WITHIN_MS = 2000;
const SLACK_MS = 2000;
/** A call that has to succeed may take this long, and one of many tries. */
const CALL_S = 5;
const TRY_S = 1;
/** What could not be written down is tried again after 30 s. */
const WRITTEN_MS = 60_000;
const SCRIPT = join(REPOSITORY, 'systemd/withdraw-rules');

const families = ['ipv4', 'ipv6'] as const;

let topology: Topology;
let program: Program;
let a: Host;
let b: Host;
let mesh: MeshHost;
let far: MeshHost;
/** Virtual addresses of both services, IPv4 first. */
let orders: readonly string[];
let vault: readonly string[];

const catalogue = (): CatalogueDocument => ({
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
});

beforeAll(async () => {
  topology = await Topology.create('mnfo', {
    networks: { lan: { ipv4: '10.92.1', ipv6: 'fd92:1', router: false } },
    hosts: { a: { lan: 1 }, b: { lan: 2 } },
  });
  a = topology.host('a');
  b = topology.host('b');
  await Promise.all([PORT, STRICT_PORT].map((port) => nginx(b, port, 'b')));
  program = await Program.prepare(topology);
  const authority = await Authority.create(join(topology.directory, 'ca'));
  const plan = { zone: 'default', catalogue: catalogue() };
  const hosted = { host: ['orders', 'vault'] };
  const config = {
    node: { callAs: 'shop' },
    daemon: { workers: 2 },
    capture: { disabledFile: join(a.directory, 'disabled'), reassertInterval: '2s', deadAfter: '1s' },
  };
  [far, mesh] = await Promise.all([
    MeshHost.start(b, program, authority, { ...plan, grants: hosted }),
    MeshHost.prepare(a, program, authority, { ...plan, grants: { callAs: ['shop'] }, config }),
  ]);
  // Its state has a disk of its own, to be filled.
  const state = join(mesh.directory, 'state');
  await topology.mount(state, '1m');
  await chown(state, mesh.user.uid, mesh.user.gid);
  await mesh.start();
  orders = await virtual('orders');
  vault = await virtual('vault');
  await writeFile(hostsFile(), '127.0.0.1 localhost\n');
  await everythingBy('mesh');
});
afterAll(async () => {
  if (mesh?.running.running) await mesh.stop();
  await far?.stop();
  await topology.stop();
});

const hostsFile = (): string => join(a.directory, 'hosts');

async function virtual(name: string): Promise<readonly string[]> {
  const { services } = (await mesh.api(`/v1/resolve?name=${name}`)) as ResolveAnswer;
  const addresses = services[0]?.virtual ?? [];
  return [...addresses].sort((one) => (one.includes(':') ? 1 : -1));
}

/** Every address by which a caller knows a service: of its instances, and its own. */
const addressesOf = (own: readonly string[]): readonly string[] => [
  ...families.map((family) => b.address(family)),
  ...own,
];

/** How a caller on a got there: who the server saw, or how it failed (7: refused). */
async function call(
  ip: string,
  port = PORT,
  seconds = CALL_S,
): Promise<'mesh' | 'direct' | `curl ${number}`> {
  const { code, stdout } = await a.exec([
    'curl',
    '-gsS',
    '--max-time',
    `${seconds}`,
    `http://${at(ip, port)}/`,
  ]);
  if (code !== 0) return `curl ${code}`;
  return families.some((family) => stdout === `b ${a.address(family)}\n`) ? 'direct' : 'mesh';
}

/** Waits until the permissive service is reached this way by all of its addresses; milliseconds that it took. */
async function everythingBy(way: 'mesh' | 'direct'): Promise<number> {
  const began = performance.now();
  await Promise.all(
    addressesOf(orders).map((ip) =>
      waitFor(`${ip} is reached: ${way}`, async () => (await call(ip, PORT, TRY_S)) === way, {
        timeoutMs: 60_000,
        intervalMs: 20,
      }),
    ),
  );
  return Math.round(performance.now() - began);
}

/** Directly, and within the bound; what it took is printed. */
async function soonDirect(what: string): Promise<void> {
  const took = await everythingBy('direct');
  console.log(`${what}: direct after ${took} ms`);
  expect(took).toBeLessThan(DIRECT_WITHIN_MS + SLACK_MS);
}

async function strictIs(...ways: readonly string[]): Promise<void> {
  for (const ip of addressesOf(vault)) expect(ways, ip).toContain(await call(ip, STRICT_PORT));
}

/** Runs the script as the service manager does when the supervisor has ended. */
async function script(...args: string[]): Promise<string> {
  const env = {
    MESH_NODE_DAEMON_STATE_DIRECTORY: join(mesh.directory, 'state'),
    MESH_NODE_DAEMON_RUNTIME_DIRECTORY: join(mesh.directory, 'run'),
    WITHDRAW_HOSTS: hostsFile(),
  };
  return a.must([SCRIPT, ...args], { env });
}

const rules = async (): Promise<RulesAnswer> => (await mesh.api('/v1/rules')) as RulesAnswer;

async function killAll(): Promise<void> {
  await mesh.signalAll('SIGKILL');
  await mesh.running.ended;
}

async function startAgain(): Promise<void> {
  await mesh.start();
  await script('serving');
  await everythingBy('mesh');
  await strictIs('mesh');
}

test('the agent runs: everything through the mesh, and what is to hold without it is written down', async () => {
  await strictIs('mesh');
  await waitFor(
    'it is written down',
    async () =>
      (await readFile(join(mesh.directory, 'state/fallback/rules-ipv6'), 'utf8').catch(() => '')).includes(
        'MESH_VIRT',
      ),
    { timeoutMs: WRITTEN_MS },
  );
});

describe('SIGKILL of everything', () => {
  test('the kernel alone: direct, strict refused', async () => {
    await killAll();
    await soonDirect('killed, the kernel alone');
    await strictIs('curl 7');
  });

  test('the script: the same, and names', async () => {
    expect(await script()).toBe('mesh-node: new connections go direct (by hand)\n');
    await soonDirect('killed, after the script');
    await strictIs('curl 7');
    const lines = (await readFile(hostsFile(), 'utf8')).split('\n');
    for (const ip of orders) expect(lines).toContain(`${ip} orders.mesh`);
    for (const ip of vault) expect(lines).toContain(`${ip} vault.mesh`);
  });

  test('the agent is back: through the mesh, and no name is left behind', async () => {
    await startAgain();
    expect(await readFile(hostsFile(), 'utf8')).toBe('127.0.0.1 localhost\n');
  });
});

describe('SIGSTOP', () => {
  test('of one of two workers: new connections are served by the other', async () => {
    const [one] = await mesh.workers();
    process.kill(one!, 'SIGSTOP');
    for (const ip of addressesOf(orders)) expect(await call(ip)).toBe('mesh');
    await strictIs('mesh');
    // One that is stopped while it starts is given longer.
    await waitFor('it is replaced and serves', async () => {
      const { workers } = await mesh.status();
      return workers.every(({ pid, state }) => pid !== one && state === 'serving');
    });
  });

  test('of all workers: direct until they are replaced, strict refused', async () => {
    const pids = await mesh.workers();
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    await soonDirect('all workers stopped');
    await everythingBy('mesh');
    await strictIs('mesh');
    const replaced = async () => !(await mesh.workers()).some((pid) => pids.includes(pid));
    await waitFor('all are replaced', replaced);
  });

  test('of the supervisor: nothing changes; its workers are not blamed for it', async () => {
    const pids = await mesh.workers();
    process.kill(mesh.running.pid, 'SIGSTOP');
    const deadline = performance.now() + 3000;
    while (performance.now() < deadline)
      for (const ip of addressesOf(orders)) expect(await call(ip)).toBe('mesh');
    await strictIs('mesh');
    process.kill(mesh.running.pid, 'SIGCONT');
    await waitFor('it answers', () => mesh.status());
    for (const ip of addressesOf(orders)) expect(await call(ip)).toBe('mesh');
    expect(await mesh.workers()).toEqual(pids);
  });

  test('of everything: the kernel alone', async () => {
    const pids = await mesh.signalAll('SIGSTOP');
    await soonDirect('everything stopped');
    await strictIs('curl 7');
    // Whoever is stopped holds its lock still, and gives no sign of life.
    expect(await script()).toContain('go direct');
    await everythingBy('direct');
    for (const pid of pids) process.kill(pid, 'SIGCONT');
    await waitFor('rules are put back', async () => (await rules()).state === 'applied', {
      timeoutMs: 20_000,
    });
    await script('serving');
    await everythingBy('mesh');
    await strictIs('mesh');
  });
});

describe('bypass', () => {
  const disabled = () => join(a.directory, 'disabled');
  const bypass = async (verb: string) => {
    const { code, stdout, stderr } = await mesh.cli(['bypass', verb, '-o', 'json']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return JSON.parse(stdout);
  };

  test('on: direct when it returns, strict refused, status says why', async () => {
    const began = performance.now();
    expect(await bypass('on')).toMatchObject({
      bypass: 'on',
      suspensions: ['disabled'],
      interception: 'withdrawn',
    });
    console.log(`bypass on: ${Math.round(performance.now() - began)} ms`);
    for (const ip of addressesOf(orders)) expect(await call(ip)).toBe('direct');
    await strictIs('curl 7');
    expect((await mesh.cli(['status', 'rules'])).stdout).toMatch(
      /goes direct +.*is there \(mesh-node bypass off\)/,
    );
    expect((await mesh.cli(['status'])).stdout).toMatch(/^ready +yes$/m);
    expect(await bypass('status')).toMatchObject({ bypass: 'on', daemon: 'running' });
  });

  test('it outlives the agent; the next one starts without intercepting', async () => {
    await mesh.stop();
    await everythingBy('direct');
    await strictIs('curl 7');
    await mesh.start();
    expect((await rules()).state).toBe('withdrawn');
    for (const ip of addressesOf(orders)) expect(await call(ip)).toBe('direct');
    await strictIs('curl 7');
  });

  test('off: through the mesh again', async () => {
    expect(await bypass('off')).toMatchObject({ bypass: 'off', interception: 'applied' });
    for (const ip of addressesOf(orders)) expect(await call(ip)).toBe('mesh');
    await strictIs('mesh');
  });

  test('touch and rm are enough', async () => {
    await writeFile(disabled(), '');
    await soonDirect('touch');
    await strictIs('curl 7');
    await rm(disabled());
    await everythingBy('mesh');
    await strictIs('mesh');
  });

  test('on, when no daemon runs and rules redirect to nobody', async () => {
    await killAll();
    const outside = await readFile('/etc/hosts', 'utf8');
    const own = join(a.directory, 'etc-hosts');
    await writeFile(own, outside);
    const command = [
      process.execPath,
      program.main,
      'bypass',
      'on',
      '-o',
      'json',
      '--config',
      mesh.configFile,
    ];
    // A mount namespace of its own: the machine's hosts file is not ours.
    const inside = [
      'unshare',
      '--mount',
      'sh',
      '-c',
      'mount --bind "$0" /etc/hosts && exec "$@"',
      own,
      ...command,
    ];
    expect(JSON.parse(await a.must(inside))).toMatchObject({ bypass: 'on', daemon: 'not running' });
    expect(await a.must(['iptables-save', '-t', 'nat'])).not.toContain('REDIRECT');
    expect(await readFile(own, 'utf8')).toContain(' orders.mesh\n');
    expect(await readFile('/etc/hosts', 'utf8')).toBe(outside);
    await everythingBy('direct');
    await strictIs('curl 7');
    await rm(disabled());
    await startAgain();
  });
});

describe('the disk is full', () => {
  const filler = () => join(mesh.directory, 'state/filler');

  test('the agent runs and starts all the same, says so, and what was written down before holds', async () => {
    await a.exec(['dd', 'if=/dev/zero', `of=${filler()}`, 'bs=4k']);
    for (const way of [() => mesh.stop(), killAll]) {
      await way();
      await mesh.start();
      await everythingBy('mesh');
    }
    // Another service: what is on disk is not what it should be.
    const { services = [], nodes } = catalogue();
    const more = { ...services[0]!, name: 'more', instances: [{ address: at(b.ipv4, 9), node: 'b' }] };
    await mesh.writeCatalogue('services.yaml', { services: [...services, more], nodes: nodes ?? [] });
    await waitFor('it is said', async () => (await rules()).fallbackProblem?.includes('ENOSPC'));
    await killAll();
    await soonDirect('disk full, killed');
    await script();
    await everythingBy('direct');
    await strictIs('curl 7');
  });

  test('there is room again', async () => {
    await rm(filler());
    await startAgain();
    await waitFor(
      'it is written down',
      async () =>
        (await readFile(join(mesh.directory, 'state/fallback/hosts'), 'utf8')).includes(' more.mesh'),
      { timeoutMs: WRITTEN_MS },
    );
    expect((await rules()).fallbackProblem).toBeUndefined();
  });
});
