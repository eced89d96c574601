import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { configSchema } from '../../../src/config/schema.ts';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { createSource } from '../../../src/registry/create-source.ts';
import { Registrar, Relay, Zookeeper } from './zookeeper-servers.ts';

const log = { info: () => undefined, warn: () => undefined };
const context = { zone: 'here', balance: 'round-robin', log } as const;
const soon = { timeout: 20_000, interval: 5 };

const directory = mkdtempSync(join(tmpdir(), 'mnzk-'));
let zookeeper: Zookeeper;
let registrar: Registrar;
let catalogue: Catalogue;

const follow = (port: number, more: object = {}) => {
  const config = configSchema.parse({
    registries: [{ type: 'zookeeper', servers: [`127.0.0.1:${port}`], sessionTimeout: '2s', ...more }],
  });
  catalogue = new Catalogue([createSource(config.registries[0]!, context)], log);
  catalogue.start();
};
const known = () =>
  Object.fromEntries(
    Array.from(catalogue.snapshot.services.values(), ({ name, instances }) => [
      name,
      instances.map((i) => `${i.id}@${i.zone}`),
    ]),
  );
const knows = (expected: Record<string, string[]>, within = soon) =>
  vi.waitFor(() => expect(known()).toEqual(expected), within);
const status = () => catalogue.status.registries[0]!;
const is = (state: string) => vi.waitFor(() => expect(status().state).toBe(state), soon);

const instance = (host: string, port: number, more: object = {}) => ({
  serviceEndpoint: { host, port },
  additionalEndpoints: { admin: { host, port: port + 1000 } },
  status: 'ALIVE',
  shard: 0,
  metadata: {},
  ...more,
});
/** What a watch tells is seen within a second. */
const second = { timeout: 1000, interval: 5 };

beforeAll(async () => {
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
      ...['-subj', '/CN=zk', '-addext', 'subjectAltName=IP:127.0.0.1'],
      ...['-keyout', join(directory, 'key.pem'), '-out', join(directory, 'ca.pem')],
    ],
    { stdio: 'ignore' },
  );
  zookeeper = await Zookeeper.start();
});
afterAll(async () => {
  await zookeeper.close();
  rmSync(directory, { recursive: true });
});
let root = '';
let tests = 0;
beforeEach(async () => {
  root = `/discovery-${++tests}`;
  registrar = await Registrar.open(zookeeper.port);
  await registrar.path(`${root}/prod/web`);
  await registrar.path(`${root}/prod/db`);
});
afterEach(async () => {
  await catalogue.stop();
  registrar.vanish();
});

test('members that join, change and leave are seen at once', async () => {
  const first = await registrar.join(
    `${root}/prod/web`,
    instance('127.0.72.1', 80, { metadata: { zone: 'a' } }),
  );
  expect(first).toBe(`${root}/prod/web/member_0000000000`);
  follow(zookeeper.port, { path: root });
  await knows({ web: ['127.0.72.1:80@a'] });
  const other = await registrar.join(`${root}/prod/web`, instance('127.0.72.2', 80));
  await knows({ web: ['127.0.72.1:80@a', '127.0.72.2:80@here'] }, second);
  await registrar.set(other, instance('127.0.72.2', 80, { status: 'DEAD' }));
  await knows({ web: ['127.0.72.1:80@a'] }, second);
  await registrar.set(other, instance('127.0.72.2', 80));
  await knows({ web: ['127.0.72.1:80@a', '127.0.72.2:80@here'] }, second);
  await registrar.remove(first);
  await knows({ web: ['127.0.72.2:80@here'] }, second);
  // A path that is new, with its members.
  await registrar.path(`${root}/test/api/v1`);
  await registrar.join(`${root}/test/api/v1`, instance('localhost', 82));
  await knows({
    web: ['127.0.72.2:80@here'],
    v1: [expect.stringMatching(/^(127\.0\.0\.1|\[::1\]):82@here$/)],
  });
  // A careless member costs only itself.
  await registrar.join(`${root}/prod/web`, { status: 'ALIVE' });
  await vi.waitFor(() => expect(status().problems).toHaveLength(1), second);
  expect(status().problems[0]).toBe(
    `${root}/prod/web/member_0000000002: serviceEndpoint.host: found nothing; expected an address or a name`,
  );
  expect(known()).toMatchObject({ web: ['127.0.72.2:80@here'] });
});

test('a host that is gone leaves when its session expires', async () => {
  const other = await Registrar.open(zookeeper.port, 1000);
  await other.join(`${root}/prod/web`, instance('127.0.72.1', 80));
  await registrar.join(`${root}/prod/db`, instance('127.0.72.1', 81));
  follow(zookeeper.port, { path: root, names: 'path' });
  await knows({ 'web.prod': ['127.0.72.1:80@here'], 'db.prod': ['127.0.72.1:81@here'] });
  other.vanish();
  await knows({ 'db.prod': ['127.0.72.1:81@here'] });
});

test('services by name, with an additional endpoint', async () => {
  await registrar.join(`${root}/prod/web`, instance('127.0.72.1', 80));
  const path = `${root}/prod/web`;
  const services = [
    { name: 'shop', path },
    { name: 'shop-admin', path, endpoint: 'admin' },
    { name: 'later', path: `${root}/later` },
  ];
  follow(zookeeper.port, { services });
  const shop = { shop: ['127.0.72.1:80@here'], 'shop-admin': ['127.0.72.1:1080@here'] };
  await knows(shop);
  expect(status().problems).toEqual([`${root}/later: there is no such path`]);
  await registrar.path(`${root}/later`);
  await registrar.join(`${root}/later`, instance('127.0.72.1', 82));
  await knows({ ...shop, later: ['127.0.72.1:82@here'] });
});

test('a connection that stalls until the session expired is a new one, with what changed meanwhile', async () => {
  const relay = await Relay.to(zookeeper.port);
  try {
    await registrar.join(`${root}/prod/web`, instance('127.0.72.1', 80));
    follow(relay.port, { path: root, sessionTimeout: '1s', timeout: '400ms' });
    await knows({ web: ['127.0.72.1:80@here'] });
    relay.stalled = true;
    await is('unreachable');
    await registrar.join(`${root}/prod/db`, instance('127.0.72.1', 81));
    expect(known()).toEqual({ web: ['127.0.72.1:80@here'] });
    relay.stalled = false;
    await knows({ web: ['127.0.72.1:80@here'], db: ['127.0.72.1:81@here'] });
    await registrar.join(`${root}/prod/db`, instance('127.0.72.2', 81));
    await knows({ web: ['127.0.72.1:80@here'], db: ['127.0.72.1:81@here', '127.0.72.2:81@here'] }, second);
  } finally {
    await catalogue.stop();
    await relay.close();
  }
});

test('credentials and TLS', async () => {
  const digest = `mesh:${createHash('sha1').update('mesh:secret').digest('base64')}`;
  await registrar.privatePath(`${root}/prod/api`, digest);
  await registrar.authenticate('mesh:secret');
  await registrar.join(`${root}/prod/api`, instance('127.0.72.1', 82));
  await registrar.join(`${root}/prod/web`, instance('127.0.72.1', 80));
  follow(zookeeper.port, { path: root });
  await knows({ web: ['127.0.72.1:80@here'] });
  expect(status().problems).toEqual([`${root}/prod/api: not allowed to read it`]);
  await catalogue.stop();

  const file = join(directory, 'auth');
  writeFileSync(file, 'mesh:secret\n', { mode: 0o600 });
  const tls = { ca: join(directory, 'ca.pem') };
  const read = (name: string) => readFileSync(join(directory, name), 'utf8');
  const relay = await Relay.to(zookeeper.port, { cert: read('ca.pem'), key: read('key.pem') });
  follow(relay.port, { path: root, auth: { file }, tls });
  await knows({ web: ['127.0.72.1:80@here'], api: ['127.0.72.1:82@here'] });
  await catalogue.stop();

  follow(relay.port, { path: root, tls: { ...tls, serverName: 'another.example' } });
  await vi.waitFor(() => expect(status().lastError).toMatch(/does not match certificate's altnames/), soon);
  await catalogue.stop();
  await relay.close();
});

test('a server that is killed removes nothing; started again, it is followed again', async () => {
  await registrar.join(`${root}/prod/web`, instance('127.0.72.1', 80));
  follow(zookeeper.port, { path: root });
  await knows({ web: ['127.0.72.1:80@here'] });
  await zookeeper.kill();
  await is('unreachable');
  expect(known()).toEqual({ web: ['127.0.72.1:80@here'] });
  await zookeeper.start();
  const again = await Registrar.open(zookeeper.port);
  await again.join(`${root}/prod/db`, instance('127.0.72.1', 81));
  await vi.waitFor(() => expect(known()).toMatchObject({ db: ['127.0.72.1:81@here'] }), soon);
  await is('synced');
  again.vanish();
});
