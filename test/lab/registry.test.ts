import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { RegistriesAnswer } from '../../src/admin/api.ts';
import type { AccessLine, MeshHost } from '../support/mesh.ts';
import { Pair } from '../support/pair.ts';
import { waitFor } from '../support/process.ts';
import { Held, knock, Loading } from '../support/traffic.ts';

const FAMILIES = ['ipv4', 'ipv6'] as const;
const PORT = 7000;
/** Addresses that name the service as a whole; nobody has them. */
const ADDRESS = { ipv4: '10.82.1.100', ipv6: 'fd82:1::100' } as const;

describe('the registry of every host is gone', () => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await Pair.start(
      { servers: ['b'], services: { traffic: PORT }, properties: { traffic: { mode: 'strict' } } },
      async (mesh, _name, self) => {
        // A file system of its own, so that it can be lost as a mount is, and nothing beneath it.
        await rm(join(mesh.catalogueDirectory, 'services.yaml'));
        await self.topology.mount(mesh.catalogueDirectory);
        await mesh.writeCatalogue('services.yaml', self.catalogue());
      },
    );
  });
  afterAll(() => pair.stop());

  test('live connections go on, new ones are served, also after a cold boot', async () => {
    const [a, b] = [pair.host('a'), pair.host('b')];
    const held = await Held.open(a, b.ipv4, PORT);
    for (const name of ['a', 'b']) await pair.topology.unmount(pair.mesh(name).catalogueDirectory);
    for (const name of ['a', 'b']) await unreachable(pair.mesh(name));
    await held.alive();
    for (const family of FAMILIES)
      expect(await knock(a, b.address(family), PORT)).toMatchObject({ echoed: 1 });
    await held.close();
    for (const name of ['b', 'a']) {
      const mesh = pair.mesh(name);
      await waitFor(`${name} has written it all down`, async () => (await mesh.accessLog()).length === 3);
      expect(await mesh.stop()).toBe(0);
      await rm(join(mesh.directory, 'log/access.log'));
    }
    for (const name of ['b', 'a']) {
      await pair.mesh(name).start();
      await unreachable(pair.mesh(name));
      expect((await pair.mesh(name).status()).snapshot).toMatchObject({ services: 1, instances: 2 });
    }
    for (const family of FAMILIES)
      expect(await knock(a, b.address(family), PORT)).toMatchObject({ echoed: 1 });
    await pair.mesh('a').logged('it', ({ path, reason }) => path === 'tunnel' && reason === 'done');
    expect(await pair.mesh('a').metric('mesh_node_registry_up')).toBe(0);
  });
});

async function unreachable(mesh: MeshHost): Promise<void> {
  await waitFor(`the registry of ${mesh.host.name} counts as unreachable`, async () => {
    const { registries } = (await mesh.api('/v1/registries')) as RegistriesAnswer;
    return registries.every(({ state }) => state === 'unreachable');
  });
}

describe('a service moves to another host under load', () => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await Pair.start({
      servers: ['b', 'd'],
      services: { traffic: PORT },
      properties: {
        traffic: { mode: 'strict', addresses: [`${ADDRESS.ipv4}:${PORT}`, `[${ADDRESS.ipv6}]:${PORT}`] },
      },
    });
    await publish(['b']);
  });
  afterAll(() => pair.stop());

  /** Tells every registry where the service runs, and waits until every agent routes by that. */
  async function publish(servers: readonly string[]): Promise<void> {
    for (const name of ['a', 'b', 'd'])
      await pair.mesh(name).writeCatalogue('services.yaml', pair.catalogue(servers));
    for (const name of ['a', 'b', 'd']) {
      await waitFor(`${name} knows of ${servers}`, async () => {
        const { snapshot, workers } = await pair.mesh(name).status();
        return (
          snapshot.instances === 2 * servers.length &&
          workers.every(({ snapshotVersion }) => snapshotVersion === snapshot.version)
        );
      });
    }
  }

  test.each(FAMILIES)('nobody notices, and what lives there goes on (%s)', async (family) => {
    const a = pair.host('a');
    await publish(['b']);
    const held = await Held.open(a, ADDRESS[family], PORT);
    const loading = await Loading.start(a, ADDRESS[family], PORT, 4);
    await publish(['b', 'd']);
    await loading.progress();
    await publish(['d']);
    const moved = Date.now();
    await loading.progress();
    await held.alive();
    const { done, failures } = await loading.stop();
    expect(failures).toEqual({});
    await held.close();
    const lines = await waitFor('all is written down', async () => {
      const all = (await pair.mesh('a').accessLog()).filter(
        ({ destination, reason }) => destination?.includes(ADDRESS[family]) && reason === 'done',
      );
      return all.length === done + 1 && all;
    });
    const nodes = (some: readonly AccessLine[]) =>
      [
        ...new Set(
          some.map(({ instance }) =>
            instance?.includes(pair.host('b').ipv4) || instance?.includes(`${pair.host('b').ipv6}]`)
              ? 'b'
              : 'd',
          ),
        ),
      ].sort();
    const time = (line: AccessLine) => Date.parse((line as unknown as { time: string }).time);
    expect(nodes(lines)).toEqual(['b', 'd']);
    expect(nodes(lines.filter((line) => time(line) > moved))).toEqual(['d']);
  });
});
