import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { createSource } from '../../../src/registry/create-source.ts';
import { SerfAgent } from './serf-agents.ts';

const log = { info: () => undefined, warn: () => undefined };
const context = { zone: 'here', balance: 'round-robin', log } as const;
const soon = { timeout: 30_000, interval: 10 };

let agents: SerfAgent[] = [];
let catalogue: Catalogue;

const follow = (agent: SerfAgent, authKeyFile?: string) => {
  const address = `127.0.0.1:${agent.rpcPort}`;
  const config = { type: 'serf', address, authKeyFile, resyncInterval: 30_000, timeout: 2000 } as const;
  catalogue = new Catalogue([createSource(config, context)], log);
  catalogue.start();
};
const three = async (authKey?: string) => {
  const key = authKey === undefined ? {} : { authKey };
  const h1 = await SerfAgent.start(
    'h1',
    '127.0.71.1',
    { services: 'web:8080', zone: 'a', mesh: '15008' },
    key,
  );
  agents.push(h1);
  const h2 = await SerfAgent.start(
    'h2',
    '127.0.71.2',
    { services: 'web:8080,db:5432', 'proto.web': 'http' },
    { ...key, join: [h1] },
  );
  agents.push(h2);
  const h3 = await SerfAgent.start(
    'h3',
    '127.0.71.3',
    { services: 'api', port: '9000', zone: 'b', 'label.version': '2' },
    { ...key, join: [h1] },
  );
  agents.push(h3);
  return [h1, h2, h3] as const;
};
const known = () =>
  Object.fromEntries(
    Array.from(catalogue.snapshot.services.values(), ({ name, instances }) => [
      name,
      instances.map((i) => `${i.id}@${i.zone}`),
    ]),
  );
const knows = (expected: Record<string, string[]>) =>
  vi.waitFor(() => expect(known()).toEqual(expected), soon);
const is = (state: string) =>
  vi.waitFor(() => expect(catalogue.status.registries[0]!.state).toBe(state), soon);

const web = { web: ['127.0.71.1:8080@a', '127.0.71.2:8080@here'] };
const db = { db: ['127.0.71.2:5432@here'] };
const api = { api: ['127.0.71.3:9000@b'] };

beforeEach(() => {
  agents = [];
});
afterEach(async () => {
  await catalogue.stop();
  await Promise.all(agents.map((agent) => agent.kill()));
});

test('three real agents: join, tags, leave, kill, and the RPC port gone and back', async () => {
  const [h1, h2, h3] = await three();
  follow(h1);
  await knows({ ...web, ...db, ...api });
  const service = [...catalogue.snapshot.services.values()].find((s) => s.name === 'web')!;
  expect(service.protocol).toBe('http');
  expect(service.instances[0]!.node).toBe('h1');
  expect(service.instances[1]!.node).toBeUndefined();
  expect([...catalogue.snapshot.nodes.values()]).toEqual([
    { name: 'h1', zone: 'a', tunnel: { ip: '127.0.71.1', port: 15008 } },
  ]);

  // New tags act at once: Serf coalesces events for about a second before it streams them.
  await h3.setTags({ services: 'api,search:9200' });
  await knows({ ...web, ...db, ...api, search: ['127.0.71.3:9200@b'] });

  // A careless member costs only itself.
  await h3.setTags({ services: 'api,Bad_One:x' });
  await knows({ ...web, ...db, ...api });
  expect(catalogue.status.registries[0]!.problems).toEqual([
    expect.stringContaining('member "h3": services: found "Bad_One:x"'),
  ]);

  await h3.leave();
  await knows({ ...web, ...db });

  await h2.kill();
  await knows({ web: ['127.0.71.1:8080@a'] });

  await h2.start({ services: 'web:8080' });
  await knows(web);

  // The RPC port hangs, then goes, then is back with an agent that has to join first.
  await h1.kill();
  await is('unreachable');
  expect(known()).toEqual(web);
  await h1.start({ services: 'web:8081', zone: 'a' });
  await vi.waitFor(
    () => expect(catalogue.status.registries[0]!.lastError).toMatch(/knows only itself|ECONNREFUSED|closed/),
    soon,
  );
  expect(known()['web']).toContain('127.0.71.2:8080@here');
  await h2.kill();
  await h2.start({ services: 'web:8080', role: 'joins h1 again' });
  await knows({ web: ['127.0.71.1:8081@a', '127.0.71.2:8080@here'] });
  await is('synced');
});

test('an agent that is stopped is unreachable within the timeout, and followed again when it goes on', async () => {
  const h1 = await SerfAgent.start('h1', '127.0.71.1', { services: 'web:8080' });
  agents.push(h1);
  const config = {
    type: 'serf',
    address: `127.0.0.1:${h1.rpcPort}`,
    resyncInterval: 200,
    timeout: 500,
  } as const;
  catalogue = new Catalogue([createSource({ ...config, authKeyFile: undefined }, context)], log);
  catalogue.start();
  await is('synced');
  h1.signal('SIGSTOP');
  await is('unreachable');
  expect(known()).toEqual({ web: ['127.0.71.1:8080@here'] });
  h1.signal('SIGCONT');
  await is('synced');
});

test('an RPC key: refused without, followed with it', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'mnreg-'));
  try {
    const authKey = 'a key that is longer than thirty-two bytes, as keys are';
    writeFileSync(join(directory, 'right'), `${authKey}\n`, { mode: 0o600 });
    writeFileSync(join(directory, 'wrong'), 'wrong', { mode: 0o600 });
    const h1 = await SerfAgent.start('h1', '127.0.71.1', { services: 'web:1' }, { authKey });
    agents.push(h1);
    for (const [file, reason] of [
      [undefined, /Authentication required/],
      [join(directory, 'wrong'), /Invalid authentication token/],
    ] as const) {
      follow(h1, file);
      await vi.waitFor(() => expect(catalogue.status.registries[0]!.lastError).toMatch(reason), soon);
      await catalogue.stop();
    }
    follow(h1, join(directory, 'right'));
    await knows({ web: ['127.0.71.1:1@here'] });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
