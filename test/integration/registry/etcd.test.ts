import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { createSource } from '../../../src/registry/create-source.ts';
import { EtcdServer, Relay } from './etcd-servers.ts';

const log = { info: () => undefined, warn: () => undefined };
const context = { zone: 'here', balance: 'round-robin', log } as const;
const soon = { timeout: 15_000, interval: 5 };

let servers: EtcdServer[] = [];
let catalogue: Catalogue;
let directory: string;

const follow = (server: EtcdServer, more: object = {}) => {
  const config = {
    type: 'etcd',
    endpoints: [server.endpoint],
    prefix: '/mesh-node',
    resyncInterval: 30_000,
    timeout: 2000,
    ...more,
  } as const;
  catalogue = new Catalogue([createSource(config, context)], log);
  catalogue.start();
};
const known = () =>
  Object.fromEntries(
    Array.from(catalogue.snapshot.services.values(), ({ name, instances }) => [
      name,
      instances.map((i) => `${i.id} ${i.address.ip}:${i.address.port}`),
    ]),
  );
const knows = (expected: Record<string, string[]>) =>
  vi.waitFor(() => expect(known()).toEqual(expected), soon);
const state = () => catalogue.status.registries[0]!;
const is = (expected: string) => vi.waitFor(() => expect(state().state).toBe(expected), soon);
const web = '/mesh-node/services/web';
const start = async (tls?: Parameters<typeof EtcdServer.start>[0]) => {
  const server = await EtcdServer.start(tls);
  servers.push(server);
  return server;
};

beforeEach(() => {
  servers = [];
  directory = mkdtempSync(join(tmpdir(), 'mnetcd-'));
});
afterEach(async () => {
  await catalogue.stop();
  await Promise.all(servers.map((server) => server.remove()));
  rmSync(directory, { recursive: true, force: true });
});

test('a real server: changes within a second, a lease, a restart, a compaction, a hang', async () => {
  const server = await start();
  await server.put(`${web}/instances/a`, { address: '10.0.0.1:80' });
  follow(server, { resyncInterval: 2000, timeout: 500 });
  await knows({ web: ['a 10.0.0.1:80'] });
  await is('synced');

  // Put, changed, removed: each is seen by the watch.
  for (const [change, expected] of [
    [() => server.put(`${web}/instances/b`, { address: '10.0.0.2:80' }), ['a 10.0.0.1:80', 'b 10.0.0.2:80']],
    [() => server.put(`${web}/instances/b`, { address: '10.0.0.3:80' }), ['a 10.0.0.1:80', 'b 10.0.0.3:80']],
    [() => server.delete(`${web}/instances/a`), ['b 10.0.0.3:80']],
  ] as const) {
    await change();
    const began = performance.now();
    await knows({ web: [...expected] });
    expect(performance.now() - began).toBeLessThan(1000);
  }
  await server.put('/mesh-node/services/bad', '{');
  await vi.waitFor(() => expect(state().problems).toHaveLength(1), soon);
  await server.delete('/mesh-node/services/bad');
  await vi.waitFor(() => expect(state().problems).toEqual([]), soon);

  // Whoever registers dies: its lease ends.
  const { ID: lease } = (await server.ask('/v3/lease/grant', { TTL: '60' })) as { ID: string };
  const key = Buffer.from('/mesh-node/services/db/instances/a').toString('base64');
  const value = Buffer.from('{"address":"10.0.0.4:81"}').toString('base64');
  await server.ask('/v3/kv/put', { key, value, lease });
  await knows({ web: ['b 10.0.0.3:80'], db: ['a 10.0.0.4:81'] });
  await server.ask('/v3/lease/revoke', { ID: lease });
  await knows({ web: ['b 10.0.0.3:80'] });

  // Gone: nothing is removed.
  await server.stop();
  await is('unreachable');
  expect(known()).toEqual({ web: ['b 10.0.0.3:80'] });
  await server.start();
  await is('synced');
  server.signal('SIGSTOP');
  await is('unreachable');
  expect(state().lastError).toMatch(/no answer within 500 ms/);
  server.signal('SIGCONT');
  await is('synced');
  await catalogue.stop();

  follow(server);
  await is('synced');
  await server.put(`${web}/instances/c`, { address: '10.0.0.5:80' });
  await server.compact();
  await knows({ web: ['b 10.0.0.3:80', 'c 10.0.0.5:80'] });
  await server.delete(`${web}/instances/b`);
  await knows({ web: ['c 10.0.0.5:80'] });
  expect(state().state).toBe('synced');
});

test('a watch from a revision that was compacted meanwhile: everything is listed again', async () => {
  const server = await start();
  await server.put(`${web}/instances/a`, { address: '10.0.0.1:80' });
  const relay = new Relay(server.endpoint);
  try {
    await relay.open();
    follow(server, { endpoints: [relay.endpoint] });
    await knows({ web: ['a 10.0.0.1:80'] });
    await vi.waitFor(() => expect(relay.heard).toMatch(/"created":true/), soon);
    await relay.close();
    await is('unreachable');
    for (const address of ['10.0.0.2:80', '10.0.0.3:80']) await server.put(`${web}/instances/a`, { address });
    await server.compact();
    relay.heard = '';
    await relay.open();
    await knows({ web: ['a 10.0.0.3:80'] });
    expect(relay.heard).toMatch(/"canceled":true,"compact_revision":"4"/);
    await is('synced');
  } finally {
    await relay.close();
  }
});

test('a user with a password, and TLS with a certificate of the client', async () => {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
  const [ca, cert, key] = ['ca.pem', 'cert.pem', 'key.pem'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', ...curve, '-subj', '/CN=authority', '-keyout', 'ca.key', '-out', ca, '-days', '2');
  openssl('req', ...curve, '-subj', '/CN=loopback', '-keyout', key, '-out', 'request.pem');
  writeFileSync(
    join(directory, 'names'),
    'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n',
  );
  openssl(
    ...['x509', '-req', '-in', 'request.pem', '-CA', ca, '-CAkey', 'ca.key', '-CAcreateserial'],
    ...['-days', '2', '-extfile', 'names', '-out', cert],
  );
  chmodSync(key, 0o600);
  const secured = await start({ ca, cert, key });
  await secured.put(`${web}/instances/a`, { address: '10.0.0.1:80' });
  follow(secured, { tls: { ca } });
  await is('unreachable');
  await catalogue.stop();
  follow(secured, { tls: { ca, cert, key } });
  await knows({ web: ['a 10.0.0.1:80'] });
  await catalogue.stop();

  const server = await start();
  const passwordFile = join(directory, 'password');
  await server.put(`${web}/instances/a`, { address: '10.0.0.1:80' });
  for (const name of ['root', 'mesh']) await server.ask('/v3/auth/user/add', { name, password: 'right' });
  await server.ask('/v3/auth/role/add', { name: 'reader' });
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const perm = { permType: 'READ', key: base64('/mesh-node/'), range_end: base64('/mesh-node0') };
  await server.ask('/v3/auth/role/grant', { name: 'reader', perm });
  await server.ask('/v3/auth/user/grant', { user: 'mesh', role: 'reader' });
  await server.ask('/v3/auth/user/grant', { user: 'root', role: 'root' });
  await server.ask('/v3/auth/enable', {});
  writeFileSync(passwordFile, 'wrong\n', { mode: 0o600 });
  follow(server, { user: 'mesh', passwordFile });
  await vi.waitFor(() => expect(state().lastError).toMatch(/authentication failed/), soon);
  writeFileSync(passwordFile, 'right\n');
  await knows({ web: ['a 10.0.0.1:80'] });
});
