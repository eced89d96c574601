import { chown, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { RulesAnswer } from '../../src/admin/api.ts';
import type { ConfigInput } from '../../src/config/schema.ts';
import type { MeshHost } from '../support/mesh.ts';
import { Pair } from '../support/pair.ts';
import { type Running, waitFor } from '../support/process.ts';
import { REPOSITORY } from '../support/topology.ts';
import { type Crowd, Held, knock } from '../support/traffic.ts';

const PORT = 7000;
const STRICT = 7001;
/** From a shortage to new connections that go direct. */
const DIRECT_WITHIN_MS = 2000;
/** Descriptors that the worker may open on top of those that it has. */
const SPARE = 100;
/** Beyond nine in ten of them: more than the few that it gives up by itself then. */
const BEYOND = 7;
/** An access-log line is written this soon after its connection. */
const LOGGED_WITHIN_MS = 200;
/** Connections tracked by a host that are more than the least share that can be configured: 1 % of 262,144. */
const FLOWS = 3000;
const TRAFFIC = join(REPOSITORY, 'build/test/support/traffic.entry.js');
const config: ConfigInput = {
  daemon: { workers: 1, hangTimeout: '10s' },
  capture: { deadAfter: '1s' },
  guard: { maxDelay: '500ms', returnAfter: '1s', returnMax: '1s' },
  limits: { callerPercent: 100 },
};

let pair: Pair;
let ip: string;

/** Log and state lie on file systems of their own, so that they can be full. */
async function onSmallDisks(mesh: MeshHost, topology: Pair['topology']): Promise<void> {
  const small = join(mesh.directory, 'small');
  await mkdir(small);
  for (const directory of [small, join(mesh.directory, 'state')]) {
    await topology.mount(directory, '256k');
    await chown(directory, mesh.user.uid, mesh.user.gid);
  }
  await symlink(join(small, 'access.log'), join(mesh.directory, 'log/access.log'));
}

beforeAll(async () => {
  pair = await Pair.start(
    {
      servers: ['b'],
      services: { traffic: PORT, guarded: STRICT },
      properties: { guarded: { mode: 'strict' } },
      config,
    },
    async (mesh, name, { topology }) => {
      if (name === 'a') await onSmallDisks(mesh, topology);
    },
  );
  ip = pair.host('b').ipv4;
});
// What a killed worker had not told yet is lost.
afterAll(() => pair.stop(['a', 'b']));

const mesh = (): MeshHost => pair.mesh('a');
const knockAt = (port: number): Promise<Crowd> => knock(pair.host('a'), ip, port);

async function workerPid(): Promise<number> {
  const [worker] = (await mesh().status()).workers.filter(({ state }) => state === 'serving');
  return worker!.pid;
}

/** So many connections, open for so long without a word, beside the test. */
function crowd(count: number, waitMs: number): Running {
  const command = [process.execPath, TRAFFIC, 'crowd', ip, `${PORT}`, `${count}`, `${waitMs}`];
  return pair.host('a').spawn('crowd', command);
}

async function told(running: Running): Promise<Crowd> {
  await running.ended;
  return JSON.parse(running.output) as Crowd;
}

const rulesState = async () => ((await mesh().api('/v1/rules')) as RulesAnswer).state;

/** Waits until the agent is out for this reason and the rules are withdrawn; how long that took. */
async function out(measure: string, began: number): Promise<number> {
  await waitFor(
    `out for ${measure}`,
    async () => {
      const { guard } = await mesh().status();
      return guard.measure === measure && (await rulesState()) === 'withdrawn';
    },
    { timeoutMs: 15_000 },
  );
  return performance.now() - began;
}

/** New connections to a permissive service go past the agent, which still serves tunnels; strict ones are refused. */
async function passedBy(): Promise<void> {
  const lines = await written();
  expect(await knockAt(PORT), 'goes direct').toMatchObject({ echoed: 1 });
  expect(await knockAt(STRICT), 'is not reached without the agent').toMatchObject({ echoed: 0 });
  expect(await written(), 'neither met the agent').toBe(lines);
  expect((await mesh().status()).ready).toBe(true);
}

/** Waits until the agent takes connections again. */
async function back(): Promise<void> {
  await waitFor('in again', async () => (await mesh().status()).guard.state === 'in', { timeoutMs: 20_000 });
  await waitFor('strict ones are reached again', async () => (await knockAt(STRICT)).echoed === 1);
  await taken();
}

/** Whole lines of the access log. */
async function written(): Promise<number> {
  const text = await readFile(join(mesh().directory, 'log/access.log'), 'utf8').catch(() => '');
  return text.split('\n').filter((line) => line.endsWith('}')).length;
}

async function taken(): Promise<void> {
  const before = await written();
  expect(await knockAt(PORT)).toMatchObject({ echoed: 1 });
  await waitFor('it was taken', async () => (await written()) > before);
}

const withdrawals = (measure: string): Promise<number> =>
  mesh().metric('mesh_node_guard_withdrawals_total', `measure="${measure}"`);

async function limitDescriptors(pid: number, more: number): Promise<void> {
  const user = { user: mesh().user };
  const open = await pair.host('a').must(['sh', '-c', `ls /proc/${pid}/fd | wc -l`], user);
  await pair.host('a').must(['prlimit', `--pid=${pid}`, `--nofile=${Number(open) + more}:`], user);
}

async function cpuSeconds(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function configure(over: ConfigInput): Promise<void> {
  const text = JSON.parse(await readFile(mesh().configFile, 'utf8')) as Record<string, object>;
  for (const [section, keys] of Object.entries(over)) text[section] = { ...text[section], ...keys };
  await writeFile(mesh().configFile, JSON.stringify(text));
  await mesh().reload();
}

describe('descriptors', () => {
  let held: Held;
  let pid: number;
  beforeAll(async () => {
    held = await Held.open(pair.host('a'), ip, PORT);
    pid = await workerPid();
    await limitDescriptors(pid, SPARE);
  });
  afterAll(async () => {
    await limitDescriptors(pid, 10_000);
    await held.close();
  });

  test('nearly none left: new connections go direct, those that live go on, and it comes back', async () => {
    const limit = Number(/files\s+(\d+)/.exec(await readFile(`/proc/${pid}/limits`, 'utf8'))![1]);
    const began = performance.now();
    // Ninety in a hundred are in use, and a few are left.
    const many = crowd(SPARE - Math.floor(limit * 0.1) + BEYOND, 4000);
    const took = await out('descriptors', began);
    expect(took, 'from the first of them').toBeLessThan(DIRECT_WITHIN_MS + 1000);
    await passedBy();
    const { failures, echoed, count } = await told(many);
    expect([failures, echoed]).toEqual([{}, count]);
    expect(await withdrawals('descriptors')).toBeGreaterThan(0);
    expect(await mesh().metric('mesh_node_guard_out', 'descriptors')).toBe(1);
    await held.alive();
    await back();
    expect(await mesh().metric('mesh_node_guard_out')).toBe(0);
  });

  test('nearly none left while the supervisor hangs: the kernel passes the worker by', async () => {
    const limit = Number(/files\s+(\d+)/.exec(await readFile(`/proc/${pid}/limits`, 'utf8'))![1]);
    process.kill(mesh().running.pid, 'SIGSTOP');
    const began = performance.now();
    const many = crowd(SPARE - Math.floor(limit * 0.1) + BEYOND, 4000);
    try {
      await waitFor('new connections go direct', async () => {
        const before = await written();
        expect(await knockAt(PORT)).toMatchObject({ echoed: 1 });
        await pause(LOGGED_WITHIN_MS);
        return (await written()) === before;
      });
      expect(performance.now() - began).toBeLessThan(DIRECT_WITHIN_MS + 2000);
    } finally {
      process.kill(mesh().running.pid, 'SIGCONT');
    }
    const { failures, echoed, count } = await told(many);
    expect([failures, echoed]).toEqual([{}, count]);
    await held.alive();
    await back();
  });

  test('none left: callers are refused at once and the worker does not spin; then they go direct', async () => {
    const began = performance.now();
    const many = crowd(SPARE * 3, 5000);
    await out('descriptors', began);
    await passedBy();
    const before = await cpuSeconds(pid);
    await pause(2000); // the time over which its work is measured
    expect((await cpuSeconds(pid)) - before, 'CPU seconds of two').toBeLessThan(0.5);
    const { failures, echoed, count } = await told(many);
    for (const why of Object.keys(failures)) expect(why).toMatch(/ECONNRESET|EPIPE|^closed/);
    expect(echoed).toBeGreaterThan(SPARE / 2);
    expect(Object.values(failures).reduce((sum, one) => sum + one, echoed)).toBe(count);
    expect(await mesh().metric('mesh_node_accepts_rejected_total')).toBeGreaterThan(0);
    await held.alive();
    await back();
  });
});

test('a worker whose loop is late again and again', async () => {
  const pid = await workerPid();
  let stalling = true;
  const stall = (async () => {
    while (stalling) {
      process.kill(pid, 'SIGSTOP');
      await pause(800);
      process.kill(pid, 'SIGCONT');
      await pause(150);
    }
  })();
  try {
    await waitFor('out for delay', async () => (await mesh().status()).guard.measure === 'delay');
    await waitFor('withdrawn', async () => (await rulesState()) === 'withdrawn');
    expect(await knockAt(PORT)).toMatchObject({ echoed: 1 });
    expect(mesh().running.output).toContain('guard: in → out: new connections go direct');
  } finally {
    stalling = false;
    await stall;
  }
  await back();
  expect(await workerPid(), 'it was not killed').toBe(pid);
});

test('connections that fail by its own limits', async () => {
  await configure({ limits: { connections: 20 } });
  try {
    const many = crowd(80, 4000);
    await out('errors', performance.now());
    expect(await knockAt(PORT)).toMatchObject({ echoed: 1 });
    expect((await told(many)).echoed).toBeGreaterThanOrEqual(15);
  } finally {
    await configure({ limits: { connections: 8000 } });
  }
  await back();
});

test('a connection tracking table that is nearly full', async () => {
  const flows = [
    'import socket',
    's = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)',
    `for port in range(20000, ${20_000 + FLOWS}): s.sendto(b"x", ("127.0.0.1", port))`,
  ];
  await configure({ guard: { maxConntrackPercent: 1 } });
  try {
    await pair.host('a').must(['python3', '-c', flows.join('\n')]);
    const began = performance.now();
    expect(await out('conntrack', began)).toBeLessThan(DIRECT_WITHIN_MS);
    await passedBy();
    expect((await mesh().cli(['status'])).stdout).toMatch(/^guard +out, for \d.*connection tracking table/m);
    expect(await mesh().metric('mesh_node_conntrack_entries')).toBeGreaterThan(FLOWS * 0.9);
    await pair.host('a').must(['conntrack', '-F']);
    await back();
  } finally {
    await configure({ guard: { maxConntrackPercent: 90 } });
  }
});

test('a worker that dies whenever it starts: new connections go direct meanwhile', async () => {
  let killing = true;
  const killer = (async () => {
    while (killing) {
      const { workers } = await mesh().status();
      for (const { pid } of workers) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // it is gone already
        }
      }
      await pause(20);
    }
  })();
  try {
    await waitFor('the rules are withdrawn', async () => (await rulesState()) === 'withdrawn');
    for (let i = 0; i < 3; i++) expect(await knockAt(PORT)).toMatchObject({ echoed: 1 });
  } finally {
    killing = false;
    await killer;
  }
  await back();
});

test('full disks: what cannot be written is counted, and nothing else happens', async () => {
  const lost = () => mesh().metric('mesh_node_access_log_dropped_total');
  const failed = () => mesh().metric('mesh_node_cache_file_writes_total', 'outcome="failed"');
  expect([await lost(), await failed()]).toEqual([0, 0]);
  const fill = (name: string) => join(mesh().directory, name, 'filler');
  for (const name of ['small', 'state']) {
    await pair.host('a').exec(['dd', 'if=/dev/zero', `of=${fill(name)}`, 'bs=4k']);
  }
  await waitFor('lines are lost', async () => {
    expect(await knockAt(PORT)).toMatchObject({ echoed: 1 });
    return (await lost()) > 0;
  });
  const { services, ...rest } = pair.catalogue();
  const more = {
    name: 'more',
    protocol: 'tcp',
    instances: [{ address: `${ip}:7002`, node: 'b', zone: 'dc1' }],
  };
  await mesh().writeCatalogue('services.yaml', { ...rest, services: [...services!, more] });
  await waitFor('the cache cannot be written', async () => (await failed()) > 0);
  expect((await mesh().status()).snapshot.services, 'and is not needed').toBe(3);
  expect(await knockAt(PORT)).toMatchObject({ echoed: 1 });
  expect((await mesh().status()).guard.state).toBe('in');
  for (const name of ['small', 'state']) await rm(fill(name));
  await taken();
});
