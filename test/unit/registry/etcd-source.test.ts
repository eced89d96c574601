import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { EtcdSource, type EtcdSourceOptions } from '../../../src/registry/etcd-source.ts';
import { FakeEtcd } from './etcd-server.fake.ts';
import { context, quiet, type Rig, type Said, sourceConformance } from './source.conformance.ts';

const source = (server: FakeEtcd, more: Partial<EtcdSourceOptions> = {}) =>
  new EtcdSource({
    endpoints: [`127.0.0.1:${server.port}`],
    prefix: '/mesh-node',
    user: undefined,
    passwordFile: undefined,
    tls: undefined,
    resyncInterval: 60_000,
    timeout: 300,
    context,
    ...more,
  });

const keysOf = (services: readonly Said[]): Record<string, object> =>
  Object.fromEntries(
    services.flatMap(({ name, instances }) =>
      instances.map(({ ip, port }) => [
        `/mesh-node/services/${name}/instances/${ip}:${port}`,
        { address: `${ip}:${port}` },
      ]),
    ),
  );

sourceConformance('etcd (fake)', async (): Promise<Rig> => {
  const server = new FakeEtcd();
  await server.listen();
  return {
    say: async (services) => server.become(keysOf(services)),
    sayNonsense: async () => server.put('/mesh-node/services/web/instances/bad', '{"address":"nowhere"}'),
    cutOff: () => server.close(),
    comeBack: () => server.listen(),
    close: () => server.close(),
    source: () => source(server),
  };
});

describe('the etcd source', () => {
  let server: FakeEtcd;
  let catalogue: Catalogue;
  const soon = { timeout: 10_000, interval: 5 };
  const follow = (options: Partial<EtcdSourceOptions> = {}) => {
    catalogue = new Catalogue([source(server, options)], quiet);
    catalogue.start();
  };
  const names = () =>
    Array.from(catalogue.snapshot.services.values(), (service) => service.name as string).sort();
  const state = () => catalogue.status.registries[0]!;
  const knows = (expected: string[]) => vi.waitFor(() => expect(names()).toEqual(expected), soon);
  const is = (expected: string) => vi.waitFor(() => expect(state().state).toBe(expected), soon);
  const failsWith = (reason: RegExp) => vi.waitFor(() => expect(state().lastError).toMatch(reason), soon);
  const lists = () => server.asked.filter((path) => path === '/v3/kv/range').length;
  const web = '/mesh-node/services/web';

  beforeEach(async () => {
    server = new FakeEtcd();
    await server.listen();
    server.put(`${web}/instances/a`, { address: '127.0.1.1:80' });
    server.put('/mesh-node/services/db/instances/a', { address: '127.0.1.2:81' });
  });
  afterEach(async () => {
    await catalogue.stop();
    await server.close();
  });

  test('services, instances and nodes come from their keys; neighbours of the prefix do not', async () => {
    server.put('/mesh-node-other/services/no/instances/a', { address: '127.0.1.9:80' });
    server.put('/mesh-node/nodes/h1', { zone: 'dc1', tunnel: '127.0.1.1:15008' });
    server.put(web, { protocol: 'http', mode: 'strict', hosts: ['web.example'] });
    server.put(`${web}/instances/a`, { address: '127.0.1.1:80', node: 'h1', weight: 7 });
    follow();
    await knows(['db', 'web']);
    const service = [...catalogue.snapshot.services.values()].find(({ name }) => name === 'web')!;
    expect(service).toMatchObject({ protocol: 'http', mode: 'strict', hosts: ['web.example'] });
    expect(service.instances).toMatchObject([{ id: 'a', node: 'h1', zone: 'dc1', weight: 7 }]);
    expect([...catalogue.snapshot.nodes.values()]).toMatchObject([{ name: 'h1', zone: 'dc1' }]);
    expect(state().problems).toEqual([]);
  });

  test('a broken description of a service that is there keeps the last good one', async () => {
    server.put(web, { mode: 'strict' });
    follow();
    await knows(['db', 'web']);
    server.put(web, '{"mode":"str');
    await vi.waitFor(() => expect(state().problems).toHaveLength(1), soon);
    expect(state().problems[0]).toMatch(/^key "services\/web": found a value that is no JSON/);
    const service = [...catalogue.snapshot.services.values()].find(({ name }) => name === 'web')!;
    expect(service.mode).toBe('strict');
  });

  test('a service whose description never could be read is left out; the cache keeps what it remembers', async () => {
    server.put(web, { mode: 'strict' });
    follow();
    await knows(['db', 'web']);
    const remembered = [...catalogue.records()];
    await catalogue.stop();
    server.put(web, { mode: 'stern' });
    follow();
    await knows(['db']);
    expect(state().problems).toEqual([expect.stringMatching(/^key "services\/web": mode: Invalid option/)]);
    await catalogue.stop();

    catalogue = new Catalogue([source(server)], quiet);
    catalogue.seed(remembered);
    catalogue.start();
    await is('synced');
    expect(names()).toEqual(['db', 'web']);
    expect(state().cached).toBe(true);
    server.put(web, { mode: 'strict', protocol: 'tcp' });
    await vi.waitFor(() => expect(state()).toMatchObject({ cached: false, problems: [] }), soon);
    const service = [...catalogue.snapshot.services.values()].find(({ name }) => name === 'web')!;
    expect(service).toMatchObject({ mode: 'strict', protocol: 'tcp' });
  });

  test('keys outside the layout and values that contradict their key are problems, each with its key', async () => {
    server.put('/mesh-node/services/db/instance/a', { address: '127.0.1.2:81' });
    server.put('/mesh-node/services/api', { name: 'other' });
    server.put(`${web}/instances/b`, { address: '127.0.1.2:80', id: 'c' });
    server.put('/mesh-node/nodes/h1', { zone: 'dc1', tunnel: '127.0.1.1:15008', name: 'h2' });
    server.put(`${web}/instances/c`, { address: '127.0.1.2:80', port: 80 });
    follow();
    await knows(['db', 'web']);
    expect(state().problems).toEqual([
      'key "nodes/h1": name: found "h2"; expected what the key says',
      'key "services/api": name: found "other"; expected what the key says',
      expect.stringMatching(
        /^key "services\/db\/instance\/a": found an unknown key; expected services\/NAME/,
      ),
      'key "services/web/instances/b": id: found "c"; expected what the key says',
      expect.stringMatching(/^key "services\/web\/instances\/c": Unrecognized key: "port"/),
    ]);
    server.become(keysOf([{ name: 'web', instances: [{ ip: '127.0.1.1', port: 80 }] }]));
    await knows(['web']);
    await vi.waitFor(() => expect(state().problems).toEqual([]), soon);
  });

  test('a large registry is read in pages, of one revision, and followed', async () => {
    for (let i = 0; i < 1234; i++)
      server.put(`${web}/instances/i${i}`, { address: `10.0.${i >> 8}.${i & 255}:80` });
    follow();
    await knows(['db', 'web']);
    const instances = () =>
      [...catalogue.snapshot.services.values()].find(({ name }) => name === 'web')!.instances.length;
    await vi.waitFor(() => expect(instances()).toBe(1235), soon);
    expect(lists()).toBe(3);
    expect(server.questions[1]).toMatchObject({ revision: String(server.revision), limit: '500' });
    server.delete(`${web}/instances/i77`);
    await vi.waitFor(() => expect(instances()).toBe(1234), soon);
    expect(lists()).toBe(3);
  });

  test('a value that no answer can hold is a problem of its key', async () => {
    server.put('/mesh-node/services/big', 'x'.repeat(4 * 1024 * 1024));
    follow({ timeout: 5000 });
    await knows(['db', 'web']);
    expect(state().problems).toEqual(['key "services/big": found a value of more than 524288 bytes']);
    expect(state().state).toBe('synced');
  });

  test('a stalled watch is made good by the next comparison', async () => {
    follow({ resyncInterval: 100 });
    await knows(['db', 'web']);
    server.stalled = true;
    server.put('/mesh-node/services/api/instances/a', { address: '127.0.1.3:82' });
    server.delete('/mesh-node/services/db/instances/a');
    await knows(['api', 'web']);
  });

  test('a lost connection is resumed from the known revision; compacted, everything is listed again', async () => {
    follow();
    await knows(['db', 'web']);
    expect(lists()).toBe(1);
    await server.close();
    server.put('/mesh-node/services/api/instances/a', { address: '127.0.1.3:82' });
    await server.listen();
    await knows(['api', 'db', 'web']);
    expect(lists()).toBe(1);
    await server.close();
    server.delete('/mesh-node/services/db/instances/a');
    server.put('/mesh-node/services/api/instances/b', { address: '127.0.1.3:83' });
    server.compact();
    await server.listen();
    await knows(['api', 'web']);
    expect(lists()).toBe(2);
    await is('synced');
  });

  test('progress confirms, and moves the revision from which is resumed', async () => {
    follow();
    await knows(['db', 'web']);
    await vi.waitFor(() => expect(server.watchers).toBe(1), soon);
    const before = state().confirmedAt!;
    server.put('/elsewhere', 'x');
    await vi.waitFor(() => {
      server.progress();
      expect(state().confirmedAt).toBeGreaterThan(before);
    }, soon);
    server.dropConnections();
    await vi.waitFor(() => expect(server.watchers).toBe(1), soon);
    const last = server.questions.at(-1)!['create_request'] as { start_revision: string };
    expect(last.start_revision).toBe(String(server.revision + 1));
  });

  test('a store that lost its data is not believed until it has content', async () => {
    follow();
    await knows(['db', 'web']);
    await server.close();
    server.loseData();
    await server.listen();
    await failsWith(/new and empty; was its data lost/);
    expect(names()).toEqual(['db', 'web']);
    server.put('/mesh-node/services/api/instances/a', { address: '127.0.1.3:82' });
    await knows(['api']);
    await is('synced');
  });

  test('the last deletion is believed; a prefix that never had a key removes nothing of the cache', async () => {
    follow();
    await knows(['db', 'web']);
    const remembered = [...catalogue.records()];
    server.become({});
    await knows([]);
    await catalogue.stop();
    catalogue = new Catalogue([source(server)], quiet);
    catalogue.seed(remembered);
    catalogue.start();
    await is('synced');
    expect(names()).toEqual(['db', 'web']);
    expect(state().problems).toEqual(['no key below /mesh-node/; is the prefix right?']);
    server.put('/mesh-node/services/db', {});
    await knows(['db']);
  });

  test('a server that hangs is left within the timeout; another endpoint goes on unnoticed', async () => {
    const other = new FakeEtcd();
    await other.listen();
    try {
      other.become(keysOf([{ name: 'web', instances: [{ ip: '127.0.1.1', port: 80 }] }]));
      server.become(keysOf([{ name: 'web', instances: [{ ip: '127.0.1.1', port: 80 }] }]));
      other.silent = true;
      const states: string[] = [];
      const both = { endpoints: [`127.0.0.1:${other.port}`, `127.0.0.1:${server.port}`], timeout: 100 };
      for (let i = 0; i < 4; i++) {
        follow(both);
        catalogue.listen({ delta: () => undefined, status: (_name, status) => states.push(status.state) });
        await knows(['web']);
        await catalogue.stop();
      }
      expect(states).not.toContain('unreachable');
      server.silent = true;
      follow(both);
      await failsWith(/127\.0\.0\.1:\d+: no answer within 100 ms; 127\.0\.0\.1:\d+: no answer within 100 ms/);
    } finally {
      await other.close();
    }
  });

  test.each([
    ['that is no JSON', 'nonsense\n', /JSON cannot be read/],
    ['with an error', '{"error":{"message":"etcdserver: no leader"}}\n', /etcd: etcdserver: no leader/],
    [
      'that is canceled',
      '{"result":{"canceled":true,"cancel_reason":"moved"}}\n',
      /canceled the watch: moved/,
    ],
    ['without end', 'x'.repeat(4 * 1024 * 1024 + 1), /a line has more than 4194304 bytes/],
  ])('a watch %s is left, and everything known stays', async (_what, bytes, reason) => {
    follow();
    await knows(['db', 'web']);
    await vi.waitFor(() => expect(server.watchers).toBe(1), soon);
    const seen: (string | undefined)[] = [];
    catalogue.listen({ delta: () => undefined, status: (_name, status) => seen.push(status.lastError) });
    server.blurt(bytes);
    await vi.waitFor(() => expect(seen.join()).toMatch(reason), soon);
    expect(names()).toEqual(['db', 'web']);
    await is('synced');
  });

  test('a server that lists for ever is left', async () => {
    server.instead = (path, response) => {
      if (path !== '/v3/kv/range') return false;
      const key = Buffer.from('/mesh-node/services/web').toString('base64');
      const header = { cluster_id: '77', revision: '5' };
      response.end(JSON.stringify({ header, kvs: [{ key, mod_revision: '4' }], more: true }));
      return true;
    };
    follow();
    await failsWith(/keys are listed out of order/);
  });

  test('user and password: a wrong one is reported, an expired token is replaced', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'mnreg-'));
    const passwordFile = join(directory, 'password');
    try {
      server.password = 'right';
      writeFileSync(passwordFile, 'wrong\n', { mode: 0o600 });
      follow({ user: 'mesh', passwordFile, resyncInterval: 100 });
      await failsWith(/etcd answered 400: etcdserver: authentication failed/);
      writeFileSync(passwordFile, 'right\n');
      await knows(['db', 'web']);
      const states: string[] = [];
      catalogue.listen({ delta: () => undefined, status: (_name, status) => states.push(status.state) });
      server.token = 'token.2';
      server.put('/mesh-node/services/api/instances/a', { address: '127.0.1.3:82' });
      const before = lists();
      await vi.waitFor(() => expect(lists()).toBeGreaterThan(before + 2), soon);
      await knows(['api', 'db', 'web']);
      expect(states).toEqual([]);
      await catalogue.stop();
      chmodSync(passwordFile, 0o644);
      follow({ user: 'mesh', passwordFile });
      await failsWith(/readable by others; expected mode 0600/);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
