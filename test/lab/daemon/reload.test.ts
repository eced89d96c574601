import { appendFile, chmod, chown, copyFile, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Pair } from '../../support/pair.ts';
import { waitFor } from '../../support/process.ts';
import { Held, knock } from '../../support/traffic.ts';

const PORT = 7000;

// What an operator can get wrong in a running agent: it is refused or set aside, and the agent goes on as it was.
// The service is strict, so that every answer came through a tunnel.
describe('a reload with something wrong', () => {
  let pair: Pair;
  let held: Held;

  beforeAll(async () => {
    pair = await Pair.start({
      servers: ['b'],
      services: { traffic: PORT },
      properties: { traffic: { mode: 'strict' } },
    });
    held = await Held.open(pair.host('a'), pair.host('b').address('ipv4'), PORT);
  });
  afterAll(async () => {
    await held.close();
    await pair.stop();
  });

  async function serves(): Promise<void> {
    const result = await knock(pair.host('a'), pair.host('b').address('ipv4'), PORT);
    expect(result).toMatchObject({ echoed: 1, failures: {} });
    await held.alive();
  }

  /** A worker that begins now has to serve by the same settings as the one before it. */
  async function servesAfterWorkerDied(): Promise<void> {
    const mesh = pair.mesh('b');
    const [before] = await mesh.workers();
    process.kill(before!, 'SIGKILL');
    await waitFor('another worker serves', async () => {
      const [worker] = (await mesh.status()).workers;
      return worker !== undefined && worker.pid !== before && worker.state === 'serving';
    });
    await held.ended();
    held = await Held.open(pair.host('a'), pair.host('b').address('ipv4'), PORT);
    await serves();
  }

  test('an unknown key is refused with its place, and nothing changes', async () => {
    const mesh = pair.mesh('a');
    const good = await readFile(mesh.configFile, 'utf8');
    await writeFile(mesh.configFile, good.replace('{', '{\n  "bogus": 1,'));
    try {
      const answer = JSON.stringify(await mesh.api('/v1/reload', 'POST'));
      expect(answer).toContain('mesh-node.yaml:2:3: bogus');
      expect(await mesh.metric('mesh_node_configuration_reloads_total', 'outcome="refused"')).toBe(1);
      await serves();
    } finally {
      await writeFile(mesh.configFile, good);
    }
    await mesh.reload();
    await serves();
  });

  test('a key that others may read is set aside', async () => {
    const mesh = pair.mesh('b');
    const key = join(mesh.directory, 'identity/node.key');
    await chmod(key, 0o644);
    try {
      await mesh.reload();
      await waitFor('it is said', () => /node\.key has mode 0644/.test(mesh.running.output));
      await servesAfterWorkerDied();
    } finally {
      await chmod(key, 0o600);
    }
  });

  test('a certificate of another node is set aside', async () => {
    const mesh = pair.mesh('b');
    const own = join(mesh.directory, 'identity');
    const { uid, gid } = await stat(join(own, 'node.key'));
    const kept = await Promise.all(['node.crt', 'node.key'].map((name) => readFile(join(own, name))));
    for (const name of ['node.crt', 'node.key']) {
      await copyFile(join(pair.mesh('a').directory, 'identity', name), join(own, name));
      await chown(join(own, name), uid, gid);
    }
    try {
      await mesh.reload();
      await waitFor('it is said', () =>
        /certificate is of node a, and this node is b/.test(mesh.running.output),
      );
      await servesAfterWorkerDied();
    } finally {
      await writeFile(join(own, 'node.crt'), kept[0]!);
      await writeFile(join(own, 'node.key'), kept[1]!);
    }
    await mesh.reload();
    await serves();
  });

  test('lines of the allow-list that cannot be read leave the last good list in force', async () => {
    const mesh = pair.mesh('a');
    const file = join(mesh.directory, 'allow-list');
    await appendFile(file, 'not an address\n');
    await waitFor('it is reported', async () => {
      const { allowListProblems } = (await mesh.api('/v1/rules')) as { allowListProblems: string[] };
      return allowListProblems.length > 0;
    });
    await serves();
    await mesh.writeAllowList([]);
    await waitFor('it is well again', async () => {
      const { allowListProblems } = (await mesh.api('/v1/rules')) as { allowListProblems: string[] };
      return allowListProblems.length === 0;
    });
  });

  test('many signals at once cost nothing', async () => {
    for (let sent = 0; sent < 200; sent++) pair.mesh('a').running.kill('SIGHUP');
    await serves();
    expect((await pair.mesh('a').status()).ready).toBe(true);
  });
});
