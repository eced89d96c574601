import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Authority, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { type Running, waitFor } from '../support/process.ts';
import { nginx, serf } from '../support/servers.ts';
import { Topology } from '../support/topology.ts';

const WEB = 8080;

// Three hosts whose only registry is Serf: services and zone are tags, and nothing central exists.
describe('a mesh by gossip', () => {
  const serfs = new Map<string, Running>();
  const meshes = new Map<string, MeshHost>();
  let topology: Topology;
  beforeAll(async () => {
    topology = await Topology.create('mnlab', {
      networks: { lan: { ipv4: '10.83.1', ipv6: 'fd83:1', router: false } },
      hosts: { a: { lan: 1 }, b: { lan: 2 }, d: { lan: 4 } },
    });
    const program = await Program.prepare(topology);
    const authority = await Authority.create(join(topology.directory, 'ca'));
    const names = ['a', 'b', 'd'];
    await Promise.all(
      names.map(async (name) => {
        const host = topology.host(name);
        if (name !== 'a') await nginx(host, WEB, name);
        const tags = {
          zone: 'dc1',
          mesh: `${TUNNEL_PORT}`,
          ...(name === 'a' ? {} : { services: `web:${WEB}` }),
        };
        const join = name === 'a' ? [] : [topology.host('a')];
        serfs.set(name, await serf(host, { tags, join }));
        const mesh = await MeshHost.start(host, program, authority, {
          zone: 'dc1',
          grants: { callAs: [], host: ['web'] },
          config: { registries: [{ type: 'serf' }] },
        });
        meshes.set(name, mesh);
      }),
    );
    await instances(2);
  });
  afterAll(() => topology.stop());

  const instances = (count: number, timeoutMs = 15_000) =>
    waitFor(
      `a knows ${count} instances`,
      async () => (await meshes.get('a')!.status()).snapshot.instances === count,
      { timeoutMs },
    );
  const get = (name: string) =>
    topology.host('a').exec(['curl', '-sS', '--max-time', '5', `http://${topology.host(name).ipv4}:${WEB}/`]);
  const path = async (name: string, count: number) => {
    const to = `${topology.host(name).ipv4}:${WEB}`;
    const lines = await waitFor(`${count} lines about ${to}`, async () => {
      const found = (await meshes.get('a')!.accessLog()).filter(({ destination }) => destination === to);
      return found.length >= count && found;
    });
    return lines.at(-1);
  };

  test('a service that is a tag is reached through the tunnel of its host', async () => {
    expect((await get('b')).stdout).toContain('b ');
    expect(await path('b', 1)).toMatchObject({ service: 'web', path: 'tunnel', zone: 'dc1', reason: 'done' });
  });

  test('a tag that goes takes its service along, without a restart; it comes back with the tag', async () => {
    const host = topology.host('d');
    await host.must(['serf', 'tags', '-delete', 'services']);
    await instances(1);
    expect((await get('d')).stdout).toContain('d ');
    await host.must(['serf', 'tags', '-set', `services=web:${WEB}`]);
    await instances(2);
    expect((await get('d')).stdout).toContain('d ');
    expect(await path('d', 1)).toMatchObject({ path: 'tunnel' });
    // The request without the tag went where it was going, and the agent of a never saw it.
    expect(
      (await meshes.get('a')!.accessLog()).filter(({ destination }) => destination?.startsWith(host.ipv4)),
    ).toHaveLength(1);
  });

  test('a member that is killed gets nothing new', async () => {
    serfs.get('d')!.kill('SIGKILL');
    await instances(1, 30_000);
  });

  test('without its own Serf agent a host goes on with what it knew, also after a cold boot', async () => {
    const mesh = meshes.get('a')!;
    serfs.get('a')!.kill('SIGKILL');
    await waitFor('the registry is unreachable', async () => {
      const { registries } = (await mesh.api('/v1/registries')) as { registries: { state: string }[] };
      return registries[0]!.state === 'unreachable';
    });
    expect((await get('b')).stdout).toContain('b ');
    await mesh.stop();
    await mesh.start();
    expect((await get('b')).stdout).toContain('b ');
    const toB = topology.host('b').ipv4;
    await waitFor('both are written down', async () => {
      const lines = await mesh.accessLog();
      return lines.filter((line) => line.path === 'tunnel' && line.destination?.startsWith(toB)).length >= 2;
    });
  });
});
