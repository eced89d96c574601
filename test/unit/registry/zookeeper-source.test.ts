import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { parseServiceName } from '../../../src/model/service.ts';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { ZookeeperSource, type ZookeeperSourceOptions } from '../../../src/registry/zookeeper-source.ts';
import { context, quiet, type Rig, type Said, sourceConformance } from './source.conformance.ts';
import { FakeZookeeper } from './zookeeper-server.fake.ts';

const source = (server: FakeZookeeper, more: Partial<ZookeeperSourceOptions> = {}) =>
  new ZookeeperSource({
    servers: [{ host: '127.0.0.1', port: server.port }],
    roots: { kind: 'tree', path: '/discovery', names: 'last' },
    auth: undefined,
    tls: undefined,
    sessionTimeout: 3000,
    resyncInterval: 60_000,
    timeout: 1000,
    context,
    ...more,
  });

const member = (host: string, port: number, more: object = {}) =>
  JSON.stringify({ serviceEndpoint: { host, port }, additionalEndpoints: {}, status: 'ALIVE', ...more });

/** Makes the tree say exactly this, and touches only what is another. */
const become = (server: FakeZookeeper, services: readonly Said[]) => {
  const wanted = new Map<string, string>();
  for (const { name, instances } of services) {
    for (const { ip, port } of instances) {
      const id = `${Number(ip.split('.')[3])}${String(port).padStart(5, '0')}`.padStart(10, '0');
      wanted.set(`/discovery/prod/${name}/member_${id}`, member(ip, port));
    }
  }
  for (const path of [...server.nodes.keys()]) {
    if (path.includes('/member_') && !wanted.has(path)) server.remove(path);
  }
  for (const [path, data] of wanted) if (server.nodes.get(path) !== data) server.put(path, data);
};

sourceConformance('a ZooKeeper server (fake)', async (): Promise<Rig> => {
  const server = new FakeZookeeper();
  await server.listen();
  server.put('/discovery', '');
  return {
    say: async (services) => become(server, services),
    sayNonsense: async () => server.put('/discovery/prod/bad/member_0000000001', '{"status":'),
    cutOff: () => server.close(),
    comeBack: () => server.listen(),
    close: () => server.close(),
    source: () => source(server),
  };
});

describe('the ZooKeeper source', () => {
  let server: FakeZookeeper;
  let catalogue: Catalogue | undefined;
  const soon = { timeout: 10_000, interval: 5 };
  const follow = (options: Partial<ZookeeperSourceOptions> = {}) => {
    catalogue = new Catalogue([source(server, options)], quiet);
    catalogue.start();
  };
  const known = () =>
    Object.fromEntries(
      Array.from(catalogue!.snapshot.services.values(), ({ name, instances }) => [
        name,
        instances.map((i) => i.id),
      ]),
    );
  const knows = (expected: Record<string, string[]>) =>
    vi.waitFor(() => expect(known()).toEqual(expected), soon);
  const state = () => catalogue!.status.registries[0]!;
  const is = (expected: string) => vi.waitFor(() => expect(state().state).toBe(expected), soon);
  const web = '/discovery/prod/web/member_0000000001';

  beforeEach(async () => {
    server = new FakeZookeeper();
    await server.listen();
    server.put(web, member('127.0.1.1', 80));
  });
  afterEach(async () => {
    await catalogue?.stop();
    catalogue = undefined;
    await server.close();
  });

  test('only ALIVE members count, also when that changes', async () => {
    follow();
    await knows({ web: ['127.0.1.1:80'] });
    server.put(web, member('127.0.1.1', 80, { status: 'DEAD' }));
    await knows({ web: [] });
    server.put(web, member('127.0.1.1', 80));
    await knows({ web: ['127.0.1.1:80'] });
    server.remove(web);
    await knows({});
  });

  test('an expired session is a new one with a full list; the registry is never believed to be empty', async () => {
    follow();
    await knows({ web: ['127.0.1.1:80'] });
    server.stalled = true;
    server.put('/discovery/prod/db/member_0000000001', member('127.0.1.2', 81));
    server.stalled = false;
    server.expire();
    await is('unreachable');
    expect(known()).toEqual({ web: ['127.0.1.1:80'] });
    await knows({ web: ['127.0.1.1:80'], db: ['127.0.1.2:81'] });
    expect(server.sessions.length).toBeGreaterThan(1);
    // The watches are those of the new session.
    server.remove(web);
    await knows({ db: ['127.0.1.2:81'] });
  });

  test('stalled watches are made good by the next comparison', async () => {
    follow({ resyncInterval: 50 });
    await knows({ web: ['127.0.1.1:80'] });
    server.stalled = true;
    server.put(web, member('127.0.1.3', 80));
    server.put('/discovery/prod/db/member_0000000001', member('127.0.1.2', 81));
    await knows({ web: ['127.0.1.3:80'], db: ['127.0.1.2:81'] });
    server.remove('/discovery/prod/db');
    await knows({ web: ['127.0.1.3:80'] });
  });

  test('a server that hangs is left within the timeout, and everything known stays', async () => {
    follow({ sessionTimeout: 150, timeout: 100 });
    await knows({ web: ['127.0.1.1:80'] });
    server.silent = true;
    await is('unreachable');
    expect(state().lastError).toMatch(/not a word within 100 ms|no session within 100 ms/);
    expect(known()).toEqual({ web: ['127.0.1.1:80'] });
    server.silent = false;
    await is('synced');
  });

  test('a server that speaks nonsense is left, and everything known stays', async () => {
    follow();
    await knows({ web: ['127.0.1.1:80'] });
    server.blurt(Buffer.from('7fffffff', 'hex'));
    await vi.waitFor(() => expect(state().lastError).toMatch(/a frame of 2147483647 bytes/), soon);
    expect(known()).toEqual({ web: ['127.0.1.1:80'] });
    await is('synced');
  });

  test('a server that is behind what was read is not asked, until no other is found for long', async () => {
    follow();
    await knows({ web: ['127.0.1.1:80'] });
    await server.close();
    server.zxid = 0n;
    server.nodes.delete(web);
    await server.listen();
    await vi.waitFor(() => expect(server.sessions.some(({ lastZxid }) => lastZxid > 0n)).toBe(true), soon);
    expect(known()).toEqual({ web: ['127.0.1.1:80'] });
    await knows({});
    expect(server.sessions.at(-1)!.lastZxid).toBe(0n);
  });

  test('the root that is not there yet is waited for', async () => {
    server.remove('/discovery');
    follow();
    await is('synced');
    expect(state().problems).toEqual(['/discovery: there is no such path']);
    server.put(web, member('127.0.1.1', 80));
    await knows({ web: ['127.0.1.1:80'] });
    await vi.waitFor(() => expect(state().problems).toEqual([]), soon);
  });

  test('what may not be read is reported, and what was known of it stays', async () => {
    server.put('/discovery/prod/db/member_0000000001', member('127.0.1.2', 81));
    follow({ resyncInterval: 50 });
    await knows({ web: ['127.0.1.1:80'], db: ['127.0.1.2:81'] });
    server.forbidden.add('/discovery/prod/db');
    await vi.waitFor(
      () => expect(state().problems).toEqual(['/discovery/prod/db: not allowed to read it']),
      soon,
    );
    expect(known()).toEqual({ web: ['127.0.1.1:80'], db: ['127.0.1.2:81'] });
    server.forbidden.clear();
    await vi.waitFor(() => expect(state().problems).toEqual([]), soon);
  });

  test('services by name and additional endpoint, instead of the tree', async () => {
    const additionalEndpoints = { http: { host: '127.0.1.1', port: 8080 } };
    server.put(web, member('127.0.1.1', 80, { additionalEndpoints }));
    server.put('/discovery/prod/db/member_0000000001', member('127.0.1.2', 81));
    const path = '/discovery/prod/web';
    const services = [
      { name: parseServiceName('shop')!, path, endpoint: '' },
      { name: parseServiceName('shop-http')!, path, endpoint: 'http' },
    ];
    follow({ roots: { kind: 'services', services } });
    await knows({ shop: ['127.0.1.1:80'], 'shop-http': ['127.0.1.1:8080'] });
  });

  test('names of hosts are resolved; one that never was keeps nobody else from being known', async () => {
    let address = '127.0.1.8';
    const resolve = (name: string) =>
      name === 'h1.example' ? Promise.resolve(address) : new Promise<string>(() => undefined);
    server.put(web, member('h1.example', 80));
    server.put('/discovery/prod/db/member_0000000001', member('hangs.example', 81));
    server.put('/discovery/prod/db/member_0000000002', member('127.0.1.2', 81));
    follow({ resolve, timeout: 200, resyncInterval: 50 });
    await knows({ web: ['127.0.1.8:80'], db: ['127.0.1.2:81'] });
    address = '127.0.1.9';
    await knows({ web: ['127.0.1.9:80'], db: ['127.0.1.2:81'] });
  });

  test('credentials are presented; wrong ones and an open file are reported', async () => {
    server.password = 'mesh:right';
    const directory = mkdtempSync(join(tmpdir(), 'mnzk-'));
    const file = join(directory, 'auth');
    try {
      writeFileSync(file, 'mesh:wrong\n', { mode: 0o600 });
      follow({ auth: { scheme: 'digest', file } });
      await vi.waitFor(() => expect(state().lastError).toMatch(/the credentials were refused/), soon);
      writeFileSync(file, 'mesh:right\n');
      await knows({ web: ['127.0.1.1:80'] });
      expect(server.credentials.at(-1)).toBe('digest mesh:right');
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test('its stop ends the session at the server', async () => {
    follow();
    await knows({ web: ['127.0.1.1:80'] });
    await catalogue!.stop();
    await vi.waitFor(() => expect(server.closings).toBe(1), soon);
  });
});
