import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { parseIp } from '../../../src/model/address.ts';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { ConsulSource, type ConsulSourceOptions } from '../../../src/registry/consul-source.ts';
import { FakeConsulAgent } from './consul-agent.fake.ts';
import { context, quiet, type Rig, type Said, sourceConformance } from './source.conformance.ts';

const source = (agent: FakeConsulAgent, more: Partial<ConsulSourceOptions> = {}) =>
  new ConsulSource({
    address: { ip: parseIp('127.0.0.1')!, port: agent.port },
    datacenter: undefined,
    zone: undefined,
    tags: [],
    tokenFile: undefined,
    tls: undefined,
    stale: true,
    resyncInterval: 60_000,
    timeout: 1000,
    context,
    ...more,
  });

const entries = (services: readonly Said[]) =>
  services.flatMap(({ name, instances }) => instances.map(({ ip, port }) => ({ name, ip, port })));

// No Consul is packaged for where these tests run: this agent speaks what Consul's documentation says.
sourceConformance('a Consul agent (fake)', async (): Promise<Rig> => {
  const agent = new FakeConsulAgent();
  await agent.listen();
  return {
    say: async (services) => agent.become(entries(services)),
    sayNonsense: async () => agent.become([...agent.entries, { name: 'web', ip: 'host.example', port: 80 }]),
    cutOff: () => agent.close(),
    comeBack: () => agent.listen(),
    close: () => agent.close(),
    source: () => source(agent),
  };
});

describe('the Consul source', () => {
  let agent: FakeConsulAgent;
  let catalogue: Catalogue;
  const soon = { timeout: 15_000, interval: 5 };
  const web = { name: 'web', ip: '127.0.1.1', port: 80 };
  const db = { name: 'db', ip: '127.0.1.2', port: 81 };
  const follow = (options: Partial<ConsulSourceOptions> = {}) => {
    catalogue = new Catalogue([source(agent, options)], quiet);
    catalogue.start();
  };
  const state = () => catalogue.status.registries[0]!;
  const service = (name: string) =>
    [...catalogue.snapshot.services.values()].find((each) => each.name === name);
  const names = () => Array.from(catalogue.snapshot.services.values(), ({ name }) => name as string).sort();
  const knows = (expected: string[]) => vi.waitFor(() => expect(names()).toEqual(expected), soon);
  const is = (expected: string) => vi.waitFor(() => expect(state().state).toBe(expected), soon);

  beforeEach(async () => {
    agent = new FakeConsulAgent();
    await agent.listen();
    agent.entries = [web, db];
  });
  afterEach(async () => {
    await catalogue.stop();
    await agent.close();
  });

  test('reads tags, meta, weights, addresses and nodes', async () => {
    agent.entries = [
      {
        ...web,
        nodeAddress: '127.0.2.1',
        tags: ['canary', 'version=2', 'team=a'],
        meta: {
          team: 'b',
          'mesh-node-zone': 'dc7',
          'mesh-node-protocol': 'http',
          'mesh-node-mode': 'strict',
        },
        nodeMeta: { 'mesh-node-tunnel': '15008', 'mesh-node-name': 'host-1', 'mesh-node-zone': 'dc6' },
        weight: 7,
      },
      { ...web, ip: '127.0.1.3', failing: true },
    ];
    follow({ datacenter: 'dc1', zone: 'dc5' });
    await knows(['web']);
    expect(service('web')).toMatchObject({ protocol: 'http', mode: 'strict' });
    expect(service('web')!.instances).toEqual([
      {
        id: '127.0.1.1:80',
        address: { ip: '127.0.1.1', port: 80 },
        node: 'host-1',
        zone: 'dc7',
        labels: { canary: 'true', version: '2', team: 'b' },
        weight: 7,
        draining: false,
      },
    ]);
    const [node] = [...catalogue.snapshot.nodes.values()];
    expect(node).toEqual({ name: 'host-1', zone: 'dc7', tunnel: { ip: '127.0.2.1', port: 15008 } });
    expect(agent.asked.every((url) => url.searchParams.get('dc') === 'dc1')).toBe(true);
    expect(agent.asked.every((url) => url.searchParams.has('stale'))).toBe(true);
    agent.become([{ ...db, nodeMeta: {} }]);
    await knows(['db']);
    expect(service('db')!.instances[0]).toMatchObject({ zone: 'dc5', weight: 100 });
    expect(catalogue.snapshot.nodes.size).toBe(0);
  });

  test('only instances with all tags', async () => {
    agent.entries = [{ ...web, tags: ['mesh', 'a'] }, { ...web, ip: '127.0.1.9', tags: ['a'] }, db];
    follow({ tags: ['mesh', 'a'] });
    await knows(['web']);
    expect(service('web')!.instances.map(({ id }) => id)).toEqual(['127.0.1.1:80']);
  });

  test('waits for changes, and does not ask again and again', async () => {
    follow();
    await knows(['db', 'web']);
    await vi.waitFor(
      () => expect(agent.asked.filter((url) => url.searchParams.has('index'))).toHaveLength(3),
      soon,
    );
    const before = agent.asked.length;
    agent.index++;
    for (let i = 0; i < 3; i++) agent.wake();
    await vi.waitFor(() => expect(agent.asked.length).toBeGreaterThan(before), soon);
    expect(agent.asked.length).toBeLessThan(before + 10);
  });

  test('a stalled watch is made good by the end of its wait', async () => {
    follow({ resyncInterval: 150 });
    await knows(['db', 'web']);
    agent.stalled = true;
    agent.become([web]);
    await knows(['web']);
  });

  test('an index that went back begins anew; one of zero is asked by the clock', async () => {
    follow({ resyncInterval: 100 });
    await knows(['db', 'web']);
    agent.index = 2;
    agent.entries = [web];
    agent.wake();
    await knows(['web']);
    agent.index = 0;
    agent.entries = [db];
    agent.wake();
    await knows(['db']);
    const before = agent.asked.length;
    agent.entries = [web, db];
    await knows(['db', 'web']);
    expect(agent.asked.length).toBeLessThan(before + 30);
  });

  test.each([403, 404, 429, 500])(
    'status %i of one service removes nothing and costs no other',
    async (status) => {
      follow({ resyncInterval: 100 });
      await knows(['db', 'web']);
      agent.refuse = { path: /service\/db$/, status };
      agent.become([web, { name: 'api', ip: '127.0.1.4', port: 1 }, db]);
      await is('unreachable');
      await knows(['api', 'db', 'web']);
      expect(state().lastError).toMatch(new RegExp(`^/v1/health/service/db: status ${status}, `));
      agent.refuse = undefined;
      await is('synced');
    },
  );

  test('an agent that hangs is unreachable within the timeout', async () => {
    follow({ resyncInterval: 100, timeout: 200 });
    await knows(['db', 'web']);
    agent.silent = true;
    await is('unreachable');
    expect(state().lastError).toMatch(/no answer within \d+ ms/);
    expect(names()).toEqual(['db', 'web']);
    agent.silent = false;
    await is('synced');
  });

  test('without a leader nothing is believed; an old answer is reported', async () => {
    follow({ resyncInterval: 100 });
    await knows(['db', 'web']);
    agent.leader = false;
    agent.become([]);
    await is('unreachable');
    expect(state().lastError).toMatch(/no leader/);
    expect(names()).toEqual(['db', 'web']);
    agent.leader = true;
    agent.lastContact = 20_000;
    agent.become([web]);
    await knows(['web']);
    await vi.waitFor(() => expect(state().problems).toEqual([expect.stringMatching(/older than/)]), soon);
  });

  test.each(['no json', '[]', '{"web": 3', 'null', '7'])('an answer of %s is refused', async (text) => {
    follow({ resyncInterval: 100 });
    await knows(['db', 'web']);
    agent.bend = () => text;
    agent.become([]);
    await is('unreachable');
    expect(names()).toEqual(['db', 'web']);
    agent.bend = (body) => body;
    await knows([]);
  });

  test('more services than are watched are followed by the clock', async () => {
    const many = Array.from({ length: 150 }, (_, i) => ({ ...web, name: `s${i}` }));
    agent.entries = many;
    follow({ resyncInterval: 300 });
    await vi.waitFor(() => expect(names()).toHaveLength(150), soon);
    agent.become(many.map((entry) => ({ ...entry, port: 90 })));
    const ports = () =>
      new Set([...catalogue.snapshot.services.values()].map(({ instances }) => instances[0]!.address.port));
    await vi.waitFor(() => expect([...ports()]).toEqual([90]), soon);
    const waiting = agent.asked.filter(({ searchParams }) => searchParams.has('index'));
    expect(new Set(waiting.map(({ pathname }) => pathname)).size).toBe(129);
  });

  test('the token is presented, and read again when it is refused', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'mncon-'));
    const tokenFile = join(directory, 'token');
    try {
      agent.token = 'right';
      writeFileSync(tokenFile, 'wrong\n', { mode: 0o600 });
      follow({ tokenFile });
      await vi.waitFor(() => expect(state().lastError).toMatch(/status 403, "Permission denied"/), soon);
      writeFileSync(tokenFile, 'right\n');
      await knows(['db', 'web']);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test('over TLS both sides prove who they are', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'mncon-'));
    const files = { ca: join(directory, 'cert'), cert: join(directory, 'cert'), key: join(directory, 'key') };
    const what = ['-subj', '/CN=consul', '-addext', 'subjectAltName=DNS:server.dc1.consul', '-days', '2'];
    const kind = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    try {
      execFileSync('openssl', ['req', ...kind, ...what, '-keyout', files.key, '-out', files.cert], {
        stdio: 'ignore',
      });
      const cert = readFileSync(files.cert);
      agent.token = undefined;
      await agent.close();
      agent.tls = {
        cert,
        ca: cert,
        key: readFileSync(files.key),
        requestCert: true,
        rejectUnauthorized: true,
      };
      await agent.listen();
      follow({ tls: files });
      await vi.waitFor(() => expect(state().lastError).toMatch(/127\.0\.0\.1 is not in the cert/), soon);
      await catalogue.stop();
      follow({ tls: { ca: files.ca, serverName: 'server.dc1.consul' } });
      await is('unreachable');
      await catalogue.stop();
      follow({ tls: { ...files, serverName: 'server.dc1.consul' } });
      await knows(['db', 'web']);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
