import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ReadyAnswer, RulesAnswer } from '../../../src/admin/api.ts';
import { issueNode, writeNodeBundle } from '../../../src/identity/authority.ts';
import type { MeshHost } from '../../support/mesh.ts';
import { Pair } from '../../support/pair.ts';
import { type Running, waitFor } from '../../support/process.ts';
import { Held, knock } from '../../support/traffic.ts';
import { ClearTraffic } from '../../support/wire.ts';

const OPEN = 7000;
const CLOSED = 7001;
const FAMILIES = ['ipv4', 'ipv6'] as const;
/** Life of the certificate that expires. */
const LIFE_MS = 4000;
const DAY_MS = 86_400_000;
/** Without a worker for this long, new connections go direct. */
const NOBODY_SERVES_MS = 1000;
/** `daemon.hangTimeout` as it is by default: a worker silent for longer is killed. */
const HANG_MS = 2000;
/** What everything beside a named bound may take on a busy machine. */
const SLACK_MS = 3000;
/** Longest pause before a worker that keeps dying is started again, and its start. */
const RESPAWN_MS = 5000 + SLACK_MS;
const DESCRIPTORS = 150;
const CALLERS = 220;

/** Opens connections all at once and keeps them: a line for each echo, and for each that is refused. */
const KEEP = `
const [ip, port, count] = process.argv.slice(1);
for (let at = 0; at < count; at++) {
  const socket = require('node:net').connect({ host: ip, port });
  socket.on('connect', () => socket.write('echo 0\\n.'));
  socket.once('data', () => console.log('echo'));
  socket.on('error', () => console.log('refused'));
}`;

// The agent of the calling host cannot do its work. What is permissive goes on without it, nothing hangs, and
// nothing has to be repaired afterwards.
describe('an agent that cannot serve', () => {
  let pair: Pair;
  let mesh: MeshHost;
  let clear: { readonly open: ClearTraffic; readonly closed: ClearTraffic };

  beforeAll(async () => {
    pair = await Pair.start({
      servers: ['b'],
      services: { open: OPEN, closed: CLOSED },
      properties: { closed: { mode: 'strict' } },
      // What happens without the guard; with it: guard.test.ts.
      config: {
        daemon: { workers: 1 },
        guard: { maxDescriptorsPercent: 100, returnAfter: '500ms', returnMax: '500ms' },
      },
    });
    mesh = pair.mesh('a');
    const watch = (port: number) =>
      ClearTraffic.watch(pair.host('b'), 'ipv4', pair.host('a').address('ipv4'), port);
    clear = { open: await watch(OPEN), closed: await watch(CLOSED) };
  });
  // Workers that were killed took what they had counted along.
  afterAll(() => pair.stop(['a']));

  const call = (port: number, family: (typeof FAMILIES)[number] = 'ipv4') =>
    knock(pair.host('a'), pair.host('b').address(family), port);

  const direct = () => clear.open.attempts();

  /** What is strict is carried, so the tunnel is. */
  async function servesByTunnel(timeoutMs: number): Promise<void> {
    await waitFor('it serves by the tunnel', async () => (await call(CLOSED)).echoed === 1, { timeoutMs });
    const before = await direct();
    expect(await call(OPEN)).toMatchObject({ echoed: 1, failures: {} });
    expect(await direct()).toBe(before);
  }

  test('its certificate has expired, and its worker is killed', async () => {
    const { expiresAt, ...bundle } = await issueNode(pair.authority.directory, {
      node: 'a',
      callAs: ['shop'],
      host: [],
      relay: false,
      days: 1,
      now: () => Date.now() - DAY_MS + LIFE_MS,
    });
    await writeNodeBundle(
      join(mesh.directory, 'identity'),
      { ...bundle, expiresAt },
      { overwrite: true, owner: mesh.user },
    );
    await mesh.reload();
    expect((await mesh.status()).certificateExpiresAt).toBe(expiresAt);
    await servesByTunnel(SLACK_MS);
    await waitFor('the certificate expires', () => Date.now() > expiresAt);
    const [before] = await mesh.workers();
    process.kill(before!, 'SIGKILL');
    await waitFor('another worker serves', async () => {
      const [worker] = (await mesh.status()).workers;
      return worker !== undefined && worker.pid !== before && worker.state === 'serving';
    });
    const soFar = await direct();
    for (const family of FAMILIES) {
      const [open, closed] = await Promise.all([call(OPEN, family), call(CLOSED, family)]);
      expect(open).toMatchObject({ echoed: 1, failures: {} });
      expect(open.echoMs).toBeLessThan(SLACK_MS);
      expect(closed.echoed).toBe(0);
      expect(Object.keys(closed.failures)).toEqual([expect.stringMatching(/ECONNRESET|EPIPE/)]);
      expect(closed.echoMs).toBeLessThan(SLACK_MS);
    }
    expect(await direct()).toBe(soFar + 1);
    expect(await clear.closed.attempts(), 'nothing strict went in the clear').toBe(0);
    expect(await mesh.workers(), 'the worker stays').toHaveLength(1);
    await mesh.issue(pair.authority, { callAs: ['shop'] });
    await mesh.reload();
    await servesByTunnel(RESPAWN_MS);
  });

  test('no worker lives long enough: the rules are withdrawn, and come back with a worker', async () => {
    let killing = true;
    const killer = (async () => {
      while (killing) {
        for (const pid of await mesh.workers()) kill(pid);
        await pause(5);
      }
    })();
    const withdrawn = async () => ((await mesh.api('/v1/rules')) as RulesAnswer).state === 'withdrawn';
    try {
      const began = performance.now();
      await waitFor('the rules are withdrawn', withdrawn);
      const took = performance.now() - began;
      expect(took).toBeGreaterThan(NOBODY_SERVES_MS / 2);
      expect(took).toBeLessThan(NOBODY_SERVES_MS + SLACK_MS);
      const before = await direct();
      const open = await call(OPEN);
      expect(open).toMatchObject({ echoed: 1, failures: {} });
      expect(open.echoMs).toBeLessThan(SLACK_MS);
      expect(await direct()).toBe(before + 1);
      expect((await mesh.status()).ready).toBe(false);
    } finally {
      killing = false;
      await killer;
    }
    await mesh.ready(RESPAWN_MS);
    await waitFor('the rules are back', async () => !(await withdrawn()));
    await servesByTunnel(SLACK_MS);
    expect(mesh.running.running).toBe(true);
  });

  test('it has no descriptor left', async () => {
    await mesh.stop();
    const limited = await startWithDescriptors(DESCRIPTORS);
    const [worker] = (await mesh.status()).workers;
    // The kernel refuses until it has heard of the worker, a moment after it is ready.
    await waitFor('the kernel has heard of it', async () => (await call(CLOSED)).echoed === 1);
    const held = await Held.open(pair.host('a'), pair.host('b').ipv4, CLOSED);
    const keeping = pair
      .host('a')
      .spawn('keep', [process.execPath, '-e', KEEP, pair.host('b').ipv4, `${OPEN}`, `${CALLERS}`]);
    const said = (word: string) => keeping.output.split(`${word}\n`).length - 1;
    try {
      // Nobody is left waiting: who has no descriptor is refused at once.
      await waitFor('all are answered', () => said('echo') + said('refused') === CALLERS, { alive: keeping });
      expect(said('echo')).toBeGreaterThan(DESCRIPTORS / 3);
      expect(said('refused'), 'the limit was met').toBeGreaterThan(0);
      const exhausted = performance.now();
      await waitFor('a worker that hung would be killed', async () => {
        const [now] = (await mesh.status()).workers;
        expect(now).toMatchObject({ pid: worker!.pid, state: 'serving' });
        return performance.now() - exhausted > HANG_MS + SLACK_MS / 2;
      });
      await held.alive();
    } finally {
      await keeping.stop();
    }
    await waitFor('new connections work', async () => (await call(CLOSED)).echoed === 1);
    await held.close();
    const [after] = (await mesh.status()).workers;
    expect(after).toMatchObject({ pid: worker!.pid, state: 'serving', restarts: 0 });
    expect(await limited.stop()).toBe(0);
  });

  /** The agent as ever, but with so many descriptors at most. */
  async function startWithDescriptors(most: number): Promise<Running> {
    const program = join(pair.topology.directory, 'program/dist/main.js');
    const limited = ['prlimit', `--nofile=${most}:${most}`, process.execPath, program];
    const running = pair.host('a').spawn('mesh-node', [...limited, 'run', '--config', mesh.configFile], {
      user: mesh.user,
      capabilities: ['net_admin', 'net_raw'],
      cwd: '/',
    });
    const isReady = async () => ((await mesh.api('/v1/ready')) as ReadyAnswer).ready;
    await waitFor('it is ready', isReady, { alive: running, timeoutMs: 20_000 });
    return running;
  }
});

function kill(pid: number): void {
  if (pid <= 1) return; // one that could not be started has none
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // it is gone already
  }
}
