import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { StatusAnswer } from '../../src/admin/api.ts';
import { Authority, type CatalogueDocument, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { at } from '../support/site.ts';
import { CLONE, SystemdHost } from '../support/systemd-host.ts';
import { Topology } from '../support/topology.ts';
import { Held, Loading, Trickle, trafficServer } from '../support/traffic.ts';

/*
 * What a busy host notices while its agent is restarted, killed, stopped, upgraded and taken off: nothing. Host a has a real
 * systemd; its applications call b and each other, and are called from b. The tests are one story.
 */

const UNIT = 'mesh-node.service';
const PROGRAM = '/usr/lib/mesh-node';
const ORDERS = 7000;
const BILLING = 7001;
const ZONE = 'dc1';
/** A transfer that lasts until it is told to come to its end. */
const LONG_BYTES = 512 * 1024 ** 2;
const SLOW_RATE = 2 * 1024 ** 2;

let topology: Topology;
let a: SystemdHost;
let b: MeshHost;

beforeAll(async () => {
  topology = await Topology.create('mnup', {
    networks: { lan: { ipv4: '10.99.1', ipv6: 'fd99:1', router: false } },
    hosts: { a: { lan: 1 }, b: { lan: 2 } },
  });
  const program = await Program.prepare(topology);
  const authority = await Authority.create(join(topology.directory, 'ca'));
  a = await SystemdHost.boot(topology, 'a');
  await a.online([`${CLONE}/scripts/install`]);
  const identity = join(topology.directory, 'identity-of-a');
  await authority.issue('a', identity, { callAs: ['shop'], host: ['billing'] });
  for (const name of ['node.key', 'node.crt', 'ca.crt'])
    await a.write(`/etc/mesh-node/identity/${name}`, await readFile(join(identity, name), 'utf8'));
  await a.must(['chown', '-R', 'mesh-node:mesh-node', '/etc/mesh-node/identity']);
  await a.must(['chmod', '600', '/etc/mesh-node/identity/node.key']);
  await a.write('/etc/mesh-node/catalogue.d/services.yaml', JSON.stringify(catalogue()));
  await a.write('/etc/mesh-node/mesh-node.yaml', configuration());
  b = await MeshHost.prepare(topology.host('b'), program, authority, {
    zone: ZONE,
    grants: { callAs: ['shop'], host: ['orders'] },
    config: { node: { callAs: 'shop' } },
    catalogue: catalogue(),
  });
  await Promise.all([trafficServer(a.host, BILLING), trafficServer(b.host, ORDERS), b.start()]);
  await a.must(['systemctl', 'enable', '--now', UNIT]);
  await ready();
});
afterAll(async () => {
  await a?.powerOff();
  await topology.stop();
});

function catalogue(): CatalogueDocument {
  const instance = (node: string, port: number) => ({
    address: at(topology.host(node).ipv4, port),
    ...{ node, zone: ZONE },
  });
  return {
    services: [
      { name: 'orders', instances: [instance('b', ORDERS)] },
      { name: 'billing', instances: [instance('a', BILLING)] },
    ],
    nodes: ['a', 'b'].map((name) => ({
      ...{ name, zone: ZONE },
      tunnel: at(topology.host(name).ipv4, TUNNEL_PORT),
    })),
  };
}

const configuration = (more = '') => `node: { name: a, zone: ${ZONE}, callAs: shop }
daemon: { workers: 2, drainTimeout: 60s${more} }
`;

const status = async () => (await a.api('/v1/status')) as StatusAnswer;

const ready = () =>
  waitFor('the agent is ready', async () => {
    const now = await status();
    return now.ready && now.workers.every(({ state }) => state === 'serving') && now;
  });

const workers = async () => (await ready()).workers.map(({ pid }) => pid).sort();
const supervisor = () => a.show(UNIT, 'MainPID');
const rules = () => a.host.must(['iptables-save', '-t', 'nat']);
const runs = async (pid: number) => (await a.exec(['test', '-d', `/proc/${pid}`])).code === 0;

/** Hundreds of connections each second in all directions, during an incident: every one has its echo. */
async function undisturbed(incident: () => Promise<void>): Promise<void> {
  const loads = await Promise.all([
    Loading.start(a.host, b.host.ipv4, ORDERS, 4),
    Loading.start(b.host, a.host.ipv4, BILLING, 4),
    Loading.start(a.host, a.host.ipv4, BILLING, 2),
  ]);
  const began = performance.now();
  let failed: unknown;
  await incident().catch((error: unknown) => {
    failed = error;
  });
  await Promise.all(loads.map((load) => load.progress()));
  const seconds = (performance.now() - began) / 1000;
  const results = await Promise.all(loads.map((load) => load.stop()));
  const done = results.reduce((sum, one) => sum + one.done, 0);
  console.log(
    `${done} connections in ${seconds.toFixed(1)} s, the longest ${results.map((r) => r.worstMs)} ms`,
  );
  if (failed !== undefined) throw failed;
  expect(results.map(({ failures }) => failures)).toEqual([{}, {}, {}]);
}

/** A connection through the agent of a in each direction. */
const hold = () =>
  Promise.all([Held.open(a.host, b.host.ipv4, ORDERS), Held.open(b.host, a.host.ipv4, BILLING)]);

async function alive(held: readonly Held[]): Promise<void> {
  await Promise.all(held.map((one) => one.alive()));
}

async function close(held: readonly Held[]): Promise<void> {
  await Promise.all(held.map((one) => one.close()));
}

/** Workers that finish have done so. */
async function leftoversEnd(): Promise<void> {
  await waitFor('leftovers have ended', async () => (await status()).leftovers.length === 0, {
    timeoutMs: 60_000,
  });
}

describe('a new supervisor', () => {
  test('systemctl restart, twice, under load: nothing is refused or reset, and what lives goes on', async () => {
    const held = await hold();
    const first = await workers();
    const transfer = Trickle.start(a.host, b.host.ipv4, ORDERS, LONG_BYTES, SLOW_RATE);
    await undisturbed(async () => {
      for (let i = 0; i < 2; i++) {
        const began = performance.now();
        await a.must(['systemctl', 'restart', UNIT]);
        console.log(`restart: ${Math.round(performance.now() - began)} ms`);
        await ready();
      }
    });
    expect((await workers()).some((pid) => first.includes(pid))).toBe(false);
    await alive(held);
    expect(transfer.running, 'it lasted over both restarts').toBe(true);
    expect(await transfer.finish()).toMatchObject({ bytes: LONG_BYTES, match: true });
    const { leftovers } = await status();
    expect(leftovers.length).toBeGreaterThan(0);
    await close(held);
    await leftoversEnd();
    for (const pid of first) expect(await runs(pid)).toBe(false);
  });
});

describe('workers without a supervisor', () => {
  /** The supervisor is lost: its workers serve on, and the next one adopts them. */
  async function adopted(lose: (pid: string) => Promise<void>): Promise<void> {
    const held = await hold();
    const before = await workers();
    const pid = await supervisor();
    const withdrawn = async () => !(await rules()).includes('-A OUTPUT -j MESH_OUT');
    await undisturbed(async () => {
      await lose(pid);
      await waitFor('systemd has noticed', async () => (await supervisor()) !== pid, {
        timeoutMs: 30_000,
        intervalMs: 5,
      });
      expect(await withdrawn(), 'the rules stand while workers serve').toBe(false);
      await a.waitActive(UNIT, pid);
      await ready();
      expect(await workers(), 'the same workers').toEqual(before);
    });
    await alive(held);
    await close(held);
    expect((await status()).leftovers).toEqual([]);
  }

  test('the supervisor is killed', () =>
    adopted(async (pid) => {
      await a.must(['kill', '-KILL', pid]);
    }));

  test('the supervisor hangs: the watchdog ends it', async () => {
    await a.must(['mkdir', '-p', `/etc/systemd/system/${UNIT}.d`]);
    await a.write(`/etc/systemd/system/${UNIT}.d/watchdog.conf`, '[Service]\nWatchdogSec=2s\n');
    await a.must(['systemctl', 'daemon-reload']);
    await a.must(['systemctl', 'restart', UNIT]);
    await leftoversEnd();
    await adopted(async (pid) => {
      await a.must(['kill', '-STOP', pid]);
    });
  });

  test('an adopted worker is replaced like any other when it dies', async () => {
    const [victim = 0, other] = await workers();
    await a.must(['kill', '-KILL', `${victim}`]);
    await waitFor('another worker', async () => !(await workers()).includes(victim));
    expect(await workers()).toContain(other);
  });

  test('settings that act at a start have changed: those of before finish', async () => {
    const held = await hold();
    const before = await workers();
    await a.write('/etc/mesh-node/mesh-node.yaml', configuration(', heartbeatInterval: 300ms'));
    const pid = await supervisor();
    await undisturbed(async () => {
      await a.must(['kill', '-KILL', pid]);
      await a.waitActive(UNIT, pid);
      await ready();
    });
    expect((await workers()).some((one) => before.includes(one))).toBe(false);
    expect((await status()).leftovers.length).toBeGreaterThan(0);
    await alive(held);
    await close(held);
    await leftoversEnd();
  });
});

describe('mesh-node upgrade', () => {
  /** Puts a version in place as scripts/install does. */
  async function install(version: string, change = ':'): Promise<void> {
    const steps = [
      `cp -a ${PROGRAM} ${PROGRAM}.new`,
      `sed -i 's/"version": "[^"]*"/"version": "${version}"/' ${PROGRAM}.new/package.json`,
      `touch ${PROGRAM}.new/dist/main.js`,
      `cd ${PROGRAM}.new && ${change}`,
      `. ${CLONE}/scripts/lib.sh`,
      `replace_program ${PROGRAM}.new ${PROGRAM}`,
    ];
    await a.must(['bash', '-ec', steps.join('\n')]);
  }

  async function putBack(): Promise<void> {
    await a.must(['bash', '-ec', `rm -rf ${PROGRAM}; mv ${PROGRAM}.old ${PROGRAM}`]);
  }

  test('a version that does not accept the configuration: refused, and everything stays', async () => {
    const before = await status();
    await install('9.0.0', `printf 'console.log("wrong: capture.mod"); process.exit(3);' >dist/main.js`);
    await undisturbed(async () => {
      const { code, stderr } = await a.exec(['node', `${PROGRAM}.old/dist/main.js`, 'upgrade']);
      expect(code).toBe(3);
      expect(stderr).toContain(
        'mesh-node 9.0.0 does not accept the running configuration: wrong: capture.mod',
      );
    });
    await putBack();
    expect(await status()).toMatchObject({ version: before.version, startedAt: before.startedAt });
  });

  test('a version that cannot start: the one before goes on, with its workers', async () => {
    const before = await status();
    const known = await workers();
    const held = await hold();
    const broken = `sed -i 's/static async hold(/static async hold() { throw new Error("cannot start"); } static async held(/'`;
    await install('9.1.0', `${broken} dist/chunks/supervisor-*.js`);
    await undisturbed(async () => {
      const { code, stderr } = await a.exec(['mesh-node', 'upgrade'], { timeoutMs: 90_000 });
      expect(stderr).toContain('9.1.0 could not start');
      expect(code).toBe(1);
    });
    const after = await ready();
    expect(after).toMatchObject({ version: before.version, pid: before.pid, leftovers: [] });
    expect(await workers()).toEqual(known);
    expect((await a.journal(UNIT)).some((line) => line.includes('cannot start'))).toBe(true);
    await putBack();
    await alive(held);
    await close(held);
  });

  test('another version, under load: same process, new workers, nothing noticed', async () => {
    const before = await ready();
    const restarts = await a.show(UNIT, 'NRestarts');
    await install('9.2.0');
    // A worker that dies before the upgrade is replaced by one of its own version.
    const [victim = 0] = await workers();
    await a.must(['kill', '-KILL', `${victim}`]);
    await waitFor('another worker', async () => !(await workers()).includes(victim));
    const held = await hold();
    const transfer = Trickle.start(b.host, a.host.ipv4, BILLING, LONG_BYTES, SLOW_RATE);
    let watching = true;
    const withdrawn = (async () => {
      let times = 0;
      while (watching) if (!(await rules()).includes('REDIRECT')) times++;
      return times;
    })();
    await undisturbed(async () => {
      const began = performance.now();
      const said = await a.must(['mesh-node', 'upgrade'], { timeoutMs: 90_000 });
      console.log(`upgrade: ${Math.round(performance.now() - began)} ms`);
      expect(said).toContain(`mesh-node ${before.version} → 9.2.0 (pid ${before.pid}, as before)`);
      expect(said).toContain('workers that serve: 2 of 2, as before: 0');
    });
    watching = false;
    expect(await withdrawn, 'rules were never withdrawn').toBe(0);
    const after = await ready();
    expect(after).toMatchObject({ version: '9.2.0', pid: before.pid });
    expect(await supervisor()).toBe(`${before.pid}`);
    expect(await a.show(UNIT, 'NRestarts'), 'systemd has started nothing').toBe(restarts);
    expect(after.leftovers.map(({ build }) => build.replace(/\+.*/, ''))).toContain(before.version);
    const tables = await a.must(['mesh-node', 'status', 'connections', '-o', 'json']);
    expect(tables).toContain('leftover-');
    await alive(held);
    expect(transfer.running, 'it lasted over the upgrade').toBe(true);
    expect(await transfer.finish()).toMatchObject({ bytes: LONG_BYTES, match: true });
    await close(held);
    await leftoversEnd();
  });

  test('two versions are put in place before one upgrade: workers are the old one’s until then', async () => {
    await install('9.3.0');
    await install('9.4.0');
    const versionIn = async (directory: string) =>
      (JSON.parse(await a.must(['cat', `${directory}/package.json`])) as { version: string }).version;
    expect([await versionIn(`${PROGRAM}.old`), await versionIn(PROGRAM)]).toEqual(['9.2.0', '9.4.0']);
    const [victim = 0] = await workers();
    await a.must(['kill', '-KILL', `${victim}`]);
    const fresh = await waitFor('another worker', async () => {
      const now = await workers();
      return !now.includes(victim) && now.length === 2 && now;
    });
    const lines = await Promise.all(fresh.map((pid) => a.must(['cat', `/proc/${pid}/cmdline`])));
    expect(lines.filter((line) => line.includes(`${PROGRAM}.old/dist/`))).toHaveLength(1);
    await undisturbed(async () => {
      const said = await a.must(['mesh-node', 'upgrade'], { timeoutMs: 90_000 });
      expect(said).toContain('mesh-node 9.2.0 → 9.4.0');
    });
    expect(await ready()).toMatchObject({ version: '9.4.0' });
    await leftoversEnd();
  });

  test('the same version again: its workers stay', async () => {
    const known = await workers();
    await undisturbed(async () => {
      expect(await a.must(['mesh-node', 'upgrade'], { timeoutMs: 90_000 })).toContain(
        'workers that serve: 2 of 2, as before: 2',
      );
    });
    expect(await workers()).toEqual(known);
  });
});

test('systemctl stop is quick, and scripts/uninstall leaves nothing while workers drain', async () => {
  const held = await Held.open(b.host, a.host.ipv4, BILLING);
  const pids = await workers();
  const began = performance.now();
  await a.must(['systemctl', 'stop', UNIT]);
  expect(performance.now() - began).toBeLessThan(5000);
  expect(await a.show(UNIT, 'Result')).toBe('success');
  await held.alive();
  const left = async () => (await Promise.all(pids.map(runs))).filter(Boolean).length;
  expect(await left()).toBeGreaterThan(0);
  await a.must([`${CLONE}/scripts/uninstall`, '--purge'], { timeoutMs: 60_000 });
  expect(await left()).toBe(0);
  expect(await held.ended()).toMatch(/ECONNRESET|EPIPE|closed/);
  const kernel = [
    ['iptables-save'],
    ['ip6tables-save'],
    ['ipset', 'list', '-n'],
    ['ip', 'rule'],
    ['ip', '-6', 'rule'],
    ['ip', 'route', 'show', 'table', 'all', 'proto', '109'],
    ['ip', '-6', 'route', 'show', 'table', 'all', 'proto', '109'],
  ];
  for (const command of kernel)
    expect(await a.host.must(command), command.join(' ')).not.toMatch(/mesh|109/i);
  for (const path of [PROGRAM, `${PROGRAM}.old`, '/run/mesh-node', '/etc/mesh-node', '/usr/bin/mesh-node'])
    expect((await a.exec(['test', '-e', path])).code, path).toBe(1);
  expect(await a.must(['cat', '/etc/hosts'])).not.toContain('mesh');
});
