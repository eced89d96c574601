import { chmod, chown, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ReloadAnswer, RulesAnswer } from '../../../src/admin/api.ts';
import { settled } from '../../support/books.ts';
import type { MeshHost } from '../../support/mesh.ts';
import { Pair } from '../../support/pair.ts';
import { waitFor } from '../../support/process.ts';
import type { Host } from '../../support/topology.ts';
import { Held, knock, trafficServer } from '../../support/traffic.ts';
import { ClearTraffic } from '../../support/wire.ts';

const PORT = 7000;
const METRICS_PORT = 15_090;
/** `daemon.drainTimeout` of the test, and a longer one for connections that shall live. */
const DRAIN_MS = 2000;
const LONG_DRAIN = '20s';
/** Long enough to look around meanwhile. */
const OBSERVED_DRAIN_MS = 6000;
/** What everything beside a named bound may take on a busy machine. */
const SLACK_MS = 5000;
/** Moments of a start at which it is told to end, after its first line. */
const EARLY_MS = [0, 20, 60, 120, 200, 300, 450];

// How the agent starts and ends when it is disturbed in it.
describe('starting, reloading and ending', () => {
  let pair: Pair;
  let mesh: MeshHost;
  let clear: ClearTraffic;
  let good: string;

  beforeAll(async () => {
    pair = await Pair.start({
      servers: ['b'],
      services: { traffic: PORT },
      config: { daemon: { drainTimeout: `${DRAIN_MS}ms` } },
    });
    mesh = pair.mesh('a');
    good = await readFile(mesh.configFile, 'utf8');
    clear = await ClearTraffic.watch(pair.host('b'), 'ipv4', pair.host('a').ipv4, PORT);
  });
  // A supervisor that was killed took what it had counted along.
  afterAll(() => pair.stop(['a']));
  beforeEach(async () => {
    if (!mesh.running.running) await mesh.start();
  });

  const hold = (): Promise<Held> => Held.open(pair.host('a'), pair.host('b').ipv4, PORT);

  /** A new connection works, and goes through the tunnel or not. */
  async function serves(path: 'tunnel' | 'direct'): Promise<void> {
    const before = await clear.attempts();
    const result = await knock(pair.host('a'), pair.host('b').ipv4, PORT);
    expect(result).toMatchObject({ echoed: 1, failures: {} });
    expect((await clear.attempts()) - before, 'connections in the clear').toBe(path === 'direct' ? 1 : 0);
  }

  async function configure(section: string, key: string, value: unknown): Promise<void> {
    const document = JSON.parse(good);
    document[section][key] = value;
    await writeFile(mesh.configFile, JSON.stringify(document, undefined, 2));
  }

  const rules = async (host: Host): Promise<string> =>
    `${await host.must(['iptables-save'])}${await host.must(['ip6tables-save'])}`;

  const withdrawn = async (): Promise<boolean> =>
    ((await mesh.api('/v1/rules')) as RulesAnswer).state === 'withdrawn';

  async function noWorkerLeft(): Promise<void> {
    const { namespace } = pair.host('a');
    await waitFor('no process of the agent is left', async () => {
      const pids = await pair.host('a').must(['ip', 'netns', 'pids', namespace]);
      const commands = await Promise.all(
        pids
          .split('\n')
          .filter((pid) => pid !== '')
          .map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
      );
      return !commands.some((command) => /\bdist\/(?:main|daemon)/.test(command));
    });
  }

  test('a reload that needs a restart changes no rule', async () => {
    try {
      await configure('capture', 'port', 15_011);
      const port = (await mesh.api('/v1/reload', 'POST')) as ReloadAnswer;
      expect(port).toMatchObject({ changed: ['capture.port'], needRestart: ['capture.port'] });
      expect(await rules(pair.host('a'))).toMatch(/--to-ports 15001\b/);
      expect(await rules(pair.host('a'))).not.toContain('15011');
      await serves('tunnel');
      await configure('capture', 'mode', 'off');
      const off = (await mesh.api('/v1/reload', 'POST')) as ReloadAnswer;
      expect(off).toMatchObject({ changed: ['capture.mode'], needRestart: ['capture.mode'] });
      await serves('tunnel');
    } finally {
      await writeFile(mesh.configFile, good);
    }
    expect(await mesh.api('/v1/reload', 'POST')).toMatchObject({ changed: [], needRestart: [] });
    await serves('tunnel');
  });

  test('a reload while it drains is refused, and no rule comes back', async () => {
    await configure('daemon', 'drainTimeout', `${OBSERVED_DRAIN_MS}ms`);
    await mesh.reload();
    await configure('daemon', 'drainTimeout', LONG_DRAIN); // a change that a reload could take over
    const held = await hold();
    const reloads = () => mesh.running.output.split('"msg":"reloaded"').length;
    const before = reloads();
    const began = performance.now();
    mesh.running.kill('SIGTERM');
    try {
      await waitFor('it drains', async () => (await mesh.status()).draining, { alive: mesh.running });
      await waitFor('its rules are withdrawn', withdrawn);
      expect(JSON.stringify(await mesh.api('/v1/reload', 'POST'))).toContain('draining');
      for (let sent = 0; sent < 20; sent++) mesh.running.kill('SIGHUP');
      await serves('direct');
      expect(await withdrawn(), 'no rule came back').toBe(true);
      await held.alive();
      expect(await mesh.running.ended).toBe(0);
    } finally {
      await writeFile(mesh.configFile, good);
    }
    expect(performance.now() - began).toBeLessThan(OBSERVED_DRAIN_MS + SLACK_MS);
    expect(reloads(), 'no reload came through').toBe(before);
    expect(await held.ended()).toMatch(/ECONNRESET|EPIPE|closed/);
    await settled([mesh], [], ['a']);
  });

  test('told to end at every moment of its start', async () => {
    await mesh.stop();
    for (const after of EARLY_MS) {
      const running = mesh.launch();
      await waitFor('it begins', () => running.output.includes('"starting"'), {
        intervalMs: 1,
        alive: running,
      });
      const begun = performance.now();
      // The moment is what varies here; nothing is hoped to have happened by then.
      await waitFor(`${after} ms`, () => performance.now() - begun >= after, { intervalMs: 1 });
      const told = performance.now();
      running.kill('SIGTERM');
      expect(await running.ended, `SIGTERM ${after} ms after the first line:\n${running.output}`).toBe(0);
      expect(performance.now() - told).toBeLessThan(DRAIN_MS + SLACK_MS);
      await settled([mesh], [], ['a']);
    }
  });

  /** It cannot start: it says why, ends soon, and leaves neither a worker nor a rule. */
  async function failsToStart(said: RegExp): Promise<void> {
    const began = performance.now();
    const running = mesh.launch();
    const code = await running.ended;
    expect(code, running.output).toBeGreaterThan(0);
    expect(code, 'no signal ended it').toBeLessThan(128);
    expect(performance.now() - began).toBeLessThan(SLACK_MS);
    expect(running.output).toMatch(said);
    await noWorkerLeft();
    expect(await rules(pair.host('a'))).not.toContain('REDIRECT');
  }

  test('the port of the metrics is taken', async () => {
    await mesh.stop();
    const other = await trafficServer(pair.host('a'), METRICS_PORT);
    try {
      await failsToStart(/cannot listen on 127\.0\.0\.1:15090: EADDRINUSE/);
    } finally {
      await other.stop();
    }
  });

  test('the runtime directory may not be written to', async () => {
    await mesh.stop();
    const directory = join(mesh.directory, 'run');
    const { uid, gid } = await stat(directory);
    await chown(directory, 0, 0);
    await chmod(directory, 0o755);
    try {
      await failsToStart(/cannot listen on \S+\/run\/workers\.sock: EACCES/);
    } finally {
      await chown(directory, uid, gid);
    }
  });

  test.each([
    ['until it ends by itself', LONG_DRAIN],
    ['until the drain deadline', `${DRAIN_MS}ms`],
  ])('a killed supervisor, started again at once: an old connection lives %s', async (_, drainTimeout) => {
    await configure('daemon', 'drainTimeout', drainTimeout);
    try {
      await mesh.reload();
      const held = await hold();
      const orphans = await mesh.workers();
      mesh.running.kill('SIGKILL');
      await mesh.running.ended;
      const killed = performance.now();
      await mesh.start();
      expect(await mesh.workers()).not.toEqual(expect.arrayContaining(orphans));
      await serves('tunnel');
      if (drainTimeout === LONG_DRAIN) {
        await held.alive();
        await held.close();
      } else {
        expect(await held.ended(DRAIN_MS + SLACK_MS)).toMatch(/ECONNRESET|EPIPE|closed/);
        expect(performance.now() - killed).toBeGreaterThan(DRAIN_MS / 2);
      }
      await waitFor('the orphaned workers end', async () => {
        const pids = await pair.host('a').must(['ip', 'netns', 'pids', pair.host('a').namespace]);
        return orphans.every((pid) => !pids.split('\n').includes(`${pid}`));
      });
      await serves('tunnel');
    } finally {
      await writeFile(mesh.configFile, good);
    }
  });
});
