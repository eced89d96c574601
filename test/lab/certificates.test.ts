import { chown } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { issueNode, writeNodeBundle } from '../../src/identity/authority.ts';
import { balanced } from '../support/books.ts';
import { type AccessLine, type CatalogueDocument, TUNNEL_PORT } from '../support/mesh.ts';
import { Pair } from '../support/pair.ts';
import { waitFor } from '../support/process.ts';
import { at } from '../support/site.ts';
import { Held, knock } from '../support/traffic.ts';
import { ClearTraffic } from '../support/wire.ts';

const FAMILIES = ['ipv4', 'ipv6'] as const;
const GRANTED = 7000;
const UNGRANTED = 7001;
const MISPLACED = 7002;
/** Life of the short certificate: long enough to start with it. */
const LIFE_MS = 15_000;

// Five hosts: a may call as shop, f may not; b may host `granted` and nothing else; d believes in, and is certified by,
// another authority; e has a certificate whose life ends. `misplaced` is said to run on a node that b is not.
describe('certificates that do not allow it', () => {
  let pair: Pair;
  let expires: number;

  /** The services as the registries tell them: all strict, each on hosts of its own. */
  const catalogue = (all: Pair): CatalogueDocument => {
    const on = (host: string, port: number, node = host) =>
      FAMILIES.map((family) => ({ address: at(all.host(host).address(family), port), node, zone: 'dc1' }));
    const service = (name: string, instances: ReturnType<typeof on>) => ({
      name,
      protocol: 'tcp',
      mode: 'strict',
      instances,
    });
    const { nodes = [] } = all.catalogue();
    const ghost = { name: 'ghost', zone: 'dc1', tunnel: at(all.host('b').ipv6, TUNNEL_PORT) };
    return {
      services: [
        service('granted', [...on('b', GRANTED), ...on('d', GRANTED), ...on('e', GRANTED)]),
        service('ungranted', on('b', UNGRANTED)),
        service('misplaced', on('b', MISPLACED, 'ghost')),
      ],
      nodes: [...nodes, ghost],
    };
  };

  beforeAll(async () => {
    const services = { granted: GRANTED, ungranted: UNGRANTED, misplaced: MISPLACED };
    pair = await Pair.start(
      {
        servers: ['b', 'd', 'e'],
        callers: ['a', 'f'],
        services,
        grants: {
          b: { host: ['granted', 'misplaced'] },
          d: { host: ['*'] },
          e: { host: ['*'] },
          f: { callAs: ['other'] },
        },
      },
      async (mesh, name, all) => {
        await mesh.writeCatalogue('services.yaml', catalogue(all));
        if (name === 'd') await mesh.issue(await all.stranger(), { host: ['*'] });
        if (name === 'e') {
          const bundle = await issueNode(all.authority.directory, {
            ...{ node: 'e', callAs: [], host: ['*'], relay: false },
            days: LIFE_MS / 86_400_000,
          });
          const identity = join(mesh.directory, 'identity');
          await writeNodeBundle(identity, bundle, { overwrite: true });
          for (const file of ['node.key', 'node.crt', 'ca.crt'])
            await chown(join(identity, file), mesh.user.uid, mesh.user.gid);
          expires = bundle.expiresAt;
        }
      },
    );
  });
  afterAll(() => pair.stop());

  /** Calls, expects a refusal, and that nothing of it went in the clear; the access-log line of the caller. */
  async function refused(
    caller: string,
    host: string,
    port: number,
    family: 'ipv4' | 'ipv6',
  ): Promise<AccessLine> {
    const [from, to] = [pair.host(caller), pair.host(host)];
    const clear = await ClearTraffic.watch(to, family, from.address(family), port);
    const ip = to.address(family);
    const { echoed, failures } = await knock(from, ip, port);
    expect(echoed).toBe(0);
    expect(Object.keys(failures)).toEqual([expect.stringContaining('ECONNRESET')]);
    expect(await clear.attempts()).toBe(0);
    const line = await pair.mesh(caller).logged('it', ({ destination }) => destination === at(ip, port));
    expect(line).toMatchObject({ path: 'tunnel', bytesReceived: 0 });
    return line;
  }

  async function counted(caller: string, service: string, reason: string): Promise<number> {
    await balanced(pair.mesh(caller));
    const labels = [`service="${service}"`, `reason="${reason}"`, 'direction="outbound"'];
    return pair.mesh(caller).metric('mesh_node_connections_total', ...labels);
  }

  test.each(FAMILIES)('what they allow is served (%s)', async (family) => {
    const ip = pair.host('b').address(family);
    expect(await knock(pair.host('a'), ip, GRANTED)).toMatchObject({ echoed: 1 });
    const line = await pair.mesh('b').logged('it', ({ instance }) => instance === at(ip, GRANTED));
    expect(line).toMatchObject({
      callerNode: 'a',
      callerService: 'shop',
      service: 'granted',
      reason: 'done',
    });
  });

  test.each(FAMILIES)('a service that the certificate of its host does not grant (%s)', async (family) => {
    const before = await counted('a', 'ungranted', 'denied');
    const line = await refused('a', 'b', UNGRANTED, family);
    expect(line).toMatchObject({
      reason: 'denied',
      detail: 'the certificate of b does not grant hosting ungranted',
    });
    expect(await counted('a', 'ungranted', 'denied')).toBe(before + 1);
  });

  test.each(FAMILIES)('a caller that may not call as what it says (%s)', async (family) => {
    const before = await counted('f', 'granted', 'denied');
    const line = await refused('f', 'b', GRANTED, family);
    expect(line).toMatchObject({ reason: 'denied', detail: 'f may not call as shop' });
    const there = await pair.mesh('b').logged('it', ({ callerNode }) => callerNode === 'f');
    expect(there).toMatchObject({
      direction: 'inbound',
      reason: 'denied',
      callerService: 'shop',
      bytesSent: 0,
    });
    expect(await counted('f', 'granted', 'denied')).toBe(before + 1);
  });

  test.each(FAMILIES)('the certificate of another node (%s)', async (family) => {
    const line = await refused('a', 'b', MISPLACED, family);
    expect(line).toMatchObject({ reason: 'tls', detail: 'expected node ghost, its certificate says b' });
    expect(await counted('a', 'misplaced', 'tls')).toBeGreaterThan(0);
  });

  test.each(FAMILIES)('a certificate of another authority (%s)', async (family) => {
    const before = await counted('a', 'granted', 'tls');
    const line = await refused('a', 'd', GRANTED, family);
    expect(line.reason).toBe('tls');
    expect(await counted('a', 'granted', 'tls')).toBe(before + 1);
  });

  test('a certificate whose life is over', async () => {
    await waitFor('the certificate of e has expired', () => Date.now() > expires + 1000, {
      timeoutMs: 2 * LIFE_MS,
    });
    for (const family of FAMILIES) {
      const line = await refused('a', 'e', GRANTED, family);
      expect(line).toMatchObject({ reason: 'tls', detail: expect.stringContaining('expired') });
    }
  });
});

describe('a certificate that is renewed', () => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await Pair.start({
      servers: ['b'],
      services: { granted: GRANTED, ungranted: UNGRANTED },
      properties: { granted: { mode: 'strict' }, ungranted: { mode: 'strict' } },
      grants: { b: { host: ['granted'] } },
    });
  });
  afterAll(() => pair.stop());

  test.each(FAMILIES)(
    'is used for new handshakes after SIGHUP, and live connections go on (%s)',
    async (family) => {
      const [a, b, mesh] = [pair.host('a'), pair.host('b'), pair.mesh('b')];
      /** What the tunnel listener of b shows to whoever connects. */
      const shown = async (): Promise<string> => {
        const target = at(b.address(family), TUNNEL_PORT);
        const said = await a.exec(['openssl', 's_client', '-connect', target, '-tls1_3'], { input: '' });
        return /-----BEGIN CERTIFICATE-----[^-]+/.exec(said.stdout)?.[0] ?? `none: ${said.stderr}`;
      };
      const held = await Held.open(a, b.address(family), GRANTED);
      const before = await shown();
      expect(before).toContain('BEGIN');
      expect(await shown()).toBe(before);
      await mesh.issue(pair.authority, { host: ['granted'] });
      expect(await shown(), 'nothing changes by itself').toBe(before);
      mesh.running.kill('SIGHUP');
      await waitFor('the new one is shown', async () => (await shown()) !== before);
      expect(await shown()).toContain('BEGIN');
      await held.alive();
      expect(await knock(a, b.address(family), GRANTED)).toMatchObject({ echoed: 1 });
      await held.close();
      expect(await mesh.metric('mesh_node_configuration_reloads_total', 'ok')).toBe(
        family === 'ipv4' ? 1 : 2,
      );
      await balanced(pair.mesh('a'));
      const ended = (await pair.mesh('a').accessLog()).map(({ path, reason }) => `${path} ${reason}`);
      expect(new Set(ended)).toEqual(new Set(['tunnel done']));
    },
  );
});
