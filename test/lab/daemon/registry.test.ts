import { chmod, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { RegistriesAnswer } from '../../../src/admin/api.ts';
import { Pair } from '../../support/pair.ts';
import { waitFor } from '../../support/process.ts';
import { knock } from '../../support/traffic.ts';

const PORT = 7000;

// A registry that fails in every way a directory can: what was known is served, and an end of the failure is noticed.
describe('a registry that fails', () => {
  let pair: Pair;

  beforeAll(async () => {
    pair = await Pair.start({
      servers: ['b'],
      services: { traffic: PORT },
      properties: { traffic: { mode: 'strict' } },
    });
  });
  afterAll(() => pair.stop());

  const directory = () => pair.mesh('a').catalogueDirectory;

  async function serves(): Promise<void> {
    const result = await knock(pair.host('a'), pair.host('b').address('ipv4'), PORT);
    expect(result).toMatchObject({ echoed: 1, failures: {} });
  }

  function registry(what: string, is: (one: RegistriesAnswer['registries'][number]) => boolean) {
    return waitFor(`registry: ${what}`, async () => {
      const { registries } = (await pair.mesh('a').api('/v1/registries')) as RegistriesAnswer;
      return registries.every(is);
    });
  }

  /** A line of the log names the file. */
  function complains(file: string) {
    const said = `"problem":"${file}:`;
    return waitFor(`it complains of ${file}`, () => pair.mesh('a').running.output.includes(said));
  }

  /** Stops the agent; its counts begin anew, so what it wrote down goes too. */
  async function stop(): Promise<void> {
    const mesh = pair.mesh('a');
    expect(await mesh.stop()).toBe(0);
    await rm(join(mesh.directory, 'log/access.log'), { force: true });
  }

  test('its directory goes, also across a cold boot, and comes back', async () => {
    const away = `${directory()}.away`;
    await rename(directory(), away);
    await registry('unreachable', ({ state }) => state === 'unreachable');
    await serves();
    const mesh = pair.mesh('a');
    await stop();
    await mesh.start();
    await serves();
    await rename(away, directory());
    await registry('synced', ({ state }) => state === 'synced');
    await serves();
  });

  test('its directory may not be read', async () => {
    await chmod(directory(), 0);
    await registry('unreachable', ({ state }) => state === 'unreachable');
    await serves();
    await chmod(directory(), 0o755);
    await registry('synced', ({ state }) => state === 'synced');
  });

  test('a file of garbage beside the good one, then instead of it', async () => {
    const good = join(directory(), 'services.yaml');
    const kept = await readFile(good, 'utf8');
    const noise = Buffer.from(Array.from({ length: 100_000 }, (_, at) => (at * 7919) % 251));
    await writeFile(join(directory(), 'noise.yaml'), noise);
    await complains('noise.yaml');
    await serves();
    await rm(join(directory(), 'noise.yaml'));
    await writeFile(good, `${kept.slice(0, 100)}{{{`);
    await complains('services.yaml');
    await serves();
    await writeFile(good, kept);
    await serves();
  });

  test('a damaged cache is set aside, and the registry is enough', async () => {
    const mesh = pair.mesh('a');
    await stop();
    const file = join(mesh.directory, 'state/catalogue.cache');
    const bytes = await readFile(file);
    bytes[bytes.length >> 1]! ^= 0xff;
    await writeFile(file, bytes);
    await mesh.start();
    await serves();
    expect((await readdir(join(mesh.directory, 'state'))).join(' ')).toMatch(/catalogue\.cache\.damaged-\d+/);
  });
});
