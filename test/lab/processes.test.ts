import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ConnectionsAnswer, WorkerStatus } from '../../src/admin/api.ts';
import { Pair } from '../support/pair.ts';
import { waitFor } from '../support/process.ts';
import { REPOSITORY } from '../support/topology.ts';
import { Held, knock, Loading } from '../support/traffic.ts';

const PORT = 7000;
const FAMILIES = ['ipv4', 'ipv6'] as const;
/** `daemon.hangTimeout` and `heartbeatInterval`, as they are by default. */
const HANG_MS = 2000;
const HEARTBEAT_MS = 500;
/** What a new worker takes to start, on a machine that does other things as well. */
const START_MS = 10_000;

let pair: Pair;
let killed: string[];
beforeEach(async () => {
  killed = [];
  pair = await Pair.start({
    servers: ['b'],
    services: { traffic: PORT },
    config: { daemon: { workers: 2, drainTimeout: '20s' } },
  });
});
afterEach(() => pair.stop(killed));

/** Capability sets of a process, in hexadecimal. */
async function capabilities(pid: number): Promise<Record<string, string>> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Object.fromEntries(
    [...status.matchAll(/^Cap(\w+):\s+0*([0-9a-f]+)$/gm)].map(([, set, bits]) => [set, bits]),
  );
}

async function workersOf(name: string): Promise<readonly WorkerStatus[]> {
  return (await pair.mesh(name).status()).workers;
}

/** Connections of each worker of an agent. */
async function spread(name: string): Promise<Map<string, number>> {
  const { connections } = (await pair.mesh(name).api('/v1/connections')) as ConnectionsAnswer;
  const result = new Map<string, number>();
  for (const { worker } of connections) result.set(worker, (result.get(worker) ?? 0) + 1);
  return result;
}

/** Opens connections until each of the two workers of the calling agent carries one at least. */
async function holdOnBoth(): Promise<Held[]> {
  const held: Held[] = [];
  while ((await spread('a')).size < 2) {
    expect(held.length, 'both workers take connections').toBeLessThan(40);
    const ip = pair.host('b').address(FAMILIES[held.length % 2]!);
    held.push(await Held.open(pair.host('a'), ip, PORT));
  }
  return held;
}

test('workers hold no capability at all, the supervisor two and lends none', async () => {
  const { pid } = pair.mesh('a').running;
  // For the moment in which it starts a program that changes rules it lends them.
  await waitFor('nothing is lent', async () => (await capabilities(pid))['Amb'] === '0');
  // CAP_NET_ADMIN is bit 12, CAP_NET_RAW bit 13.
  expect(await capabilities(pid)).toMatchObject({ Eff: '3000', Prm: '3000' });
  const workers = await pair.mesh('a').workers();
  expect(workers).toHaveLength(2);
  for (const pid of workers) expect(await capabilities(pid)).toMatchObject({ Eff: '0', Prm: '0', Amb: '0' });
});

describe.each([
  ['killed', 'SIGKILL', 0],
  ['stopped', 'SIGSTOP', HANG_MS + HEARTBEAT_MS],
] as const)('a worker that is %s', (_, signal, noticedMs) => {
  test.each(['a', 'b'])(
    'is replaced, and costs nobody but its own connections (agent on %s)',
    async (name) => {
      killed = ['a', 'b'];
      const held = await holdOnBoth();
      const ofWorkers = await spread(name);
      const [worker] = [...ofWorkers].sort(([, x], [, y]) => y - x)[0]!;
      const before = (await workersOf(name)).find((one) => one.name === worker)!;
      const began = performance.now();
      process.kill(before.pid, signal);
      if (signal === 'SIGSTOP' && name === 'a') {
        // The other worker takes what comes: the queue belongs to both.
        for (const family of FAMILIES)
          expect(await knock(pair.host('a'), pair.host('b').address(family), PORT)).toMatchObject({
            echoed: 1,
          });
      }
      await waitFor(
        'the worker is replaced',
        async () => {
          const now = (await workersOf(name)).find((one) => one.name === worker);
          return now !== undefined && now.pid !== before.pid && now.state === 'serving' && now;
        },
        { timeoutMs: noticedMs + START_MS },
      );
      expect(performance.now() - began).toBeGreaterThan(noticedMs === 0 ? 0 : HANG_MS - HEARTBEAT_MS);
      const lost = () => held.filter((one) => one.lost !== undefined);
      await waitFor('its connections end', () => lost().length === ofWorkers.get(worker));
      const rest = held.filter((one) => one.lost === undefined);
      await Promise.all(rest.map((one) => one.alive()));
      for (const family of FAMILIES)
        expect(await knock(pair.host('a'), pair.host('b').address(family), PORT)).toMatchObject({
          echoed: 1,
        });
      await Promise.all(rest.map((one) => one.close()));
      expect(await pair.mesh(name).metric('mesh_node_worker_restarts_total', 'killed')).toBe(1);
      // Lines are written a moment after the connection's end, in blocks.
      await waitFor('a line for each connection that ended by itself', async () => {
        const lines = (await pair.mesh('a').accessLog()).filter(({ reason }) => reason === 'done');
        return lines.length >= rest.length + 2;
      });
      expect(await workersOf(name)).toHaveLength(2);
    },
  );
});

test('under load a killed worker costs what was in it, no more', async () => {
  killed = ['a', 'b'];
  const parallel = 4;
  const loading = await Loading.start(pair.host('a'), pair.host('b').ipv4, PORT, parallel);
  const [victim] = await workersOf('a');
  process.kill(victim!.pid, 'SIGKILL');
  await waitFor('it is replaced', async () => {
    const now = await workersOf('a');
    return now.length === 2 && now.every(({ pid, state }) => pid !== victim!.pid && state === 'serving');
  });
  await loading.progress();
  const { failures, done } = await loading.stop();
  expect(done).toBeGreaterThan(parallel);
  expect(Object.values(failures).reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(parallel);
});

test('a killed supervisor: its workers finish their connections and end, and the unit lets new ones go direct', async () => {
  killed = ['a'];
  const mesh = pair.mesh('a');
  const held = await Held.open(pair.host('a'), pair.host('b').ipv4, PORT);
  const workers = await mesh.workers();
  process.kill(mesh.running.pid, 'SIGKILL');
  await mesh.running.ended;
  await held.alive();
  // What systemd runs when the main process has ended.
  await pair.host('a').must([join(REPOSITORY, 'systemd/withdraw-rules')]);
  for (const family of FAMILIES)
    expect(await knock(pair.host('a'), pair.host('b').address(family), PORT)).toMatchObject({ echoed: 1 });
  await held.alive();
  await held.close();
  await waitFor('the workers end', async () => {
    const pids = await pair.host('a').must(['ip', 'netns', 'pids', pair.host('a').namespace]);
    return workers.every((pid) => !pids.split('\n').includes(`${pid}`));
  });
  const lines = await mesh.accessLog();
  expect(lines.map(({ path, reason }) => `${path} ${reason}`)).toEqual(['tunnel done']);
  await rm(join(mesh.directory, 'log/access.log'));
  killed = [];
  await mesh.start();
  for (const family of FAMILIES)
    expect(await knock(pair.host('a'), pair.host('b').address(family), PORT)).toMatchObject({ echoed: 1 });
  await mesh.logged('a connection through the tunnel', ({ path }) => path === 'tunnel');
});
