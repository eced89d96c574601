import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { parseIp } from '../../../src/model/address.ts';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { SerfSource, type SerfSourceOptions } from '../../../src/registry/serf-source.ts';
import { FakeSerfAgent } from './serf-agent.fake.ts';
import { context, quiet, type Rig, type Said, sourceConformance } from './source.conformance.ts';

const source = (agent: FakeSerfAgent, more: Partial<SerfSourceOptions> = {}) =>
  new SerfSource({
    address: { ip: parseIp('127.0.0.1')!, port: agent.port },
    authKeyFile: undefined,
    resyncInterval: 60_000,
    timeout: 300,
    context,
    ...more,
  });

/** Each address is a member, with all services that listen there; one more so that the agent is not alone. */
const members = (services: readonly Said[]) => {
  const tags = new Map<string, string[]>([
    ['127.0.1.99', []],
    ['127.0.1.98', []],
  ]);
  for (const { name, instances } of services) {
    for (const { ip, port } of instances) tags.set(ip, [...(tags.get(ip) ?? []), `${name}:${port}`]);
  }
  return Array.from(tags, ([ip, list]) => ({ name: `m-${ip}`, ip, tags: { services: list.join(',') } }));
};

sourceConformance('a Serf agent (fake)', async (): Promise<Rig> => {
  const agent = new FakeSerfAgent();
  await agent.listen();
  return {
    say: async (services) => agent.become(members(services)),
    sayNonsense: async () =>
      agent.become([...agent.members, { name: 'bad', ip: '127.0.1.7', tags: { services: 'Bad Name:x' } }]),
    cutOff: () => agent.close(),
    comeBack: () => agent.listen(),
    close: () => agent.close(),
    source: () => source(agent),
  };
});

describe('the Serf source', () => {
  let agent: FakeSerfAgent;
  let catalogue: Catalogue;
  const soon = { timeout: 10_000, interval: 5 };
  const follow = (options: Partial<SerfSourceOptions> = {}) => {
    catalogue = new Catalogue([source(agent, options)], quiet);
    catalogue.start();
  };
  const names = () =>
    Array.from(catalogue.snapshot.services.values(), (service) => service.name as string).sort();
  const state = () => catalogue.status.registries[0]!;
  const knows = (expected: string[]) => vi.waitFor(() => expect(names()).toEqual(expected), soon);
  const a = { name: 'a', ip: '127.0.1.1', tags: { services: 'web:80' } };
  const b = { name: 'b', ip: '127.0.1.2', tags: { services: 'db:81' } };

  beforeEach(async () => {
    agent = new FakeSerfAgent();
    await agent.listen();
    agent.members = [a, b];
  });
  afterEach(async () => {
    await catalogue.stop();
    await agent.close();
  });

  test.each(['member-leave', 'member-failed', 'member-reap'])(
    '%s takes the instances out at once',
    async (event) => {
      follow();
      await knows(['db', 'web']);
      agent.tell(event, [{ ...b, status: 'failed' }]);
      await knows(['web']);
      agent.tell('member-join', [b]);
      await knows(['db', 'web']);
    },
  );

  test('a member that is leaving drains', async () => {
    agent.members = [a, { ...b, status: 'leaving' }];
    follow();
    await knows(['db', 'web']);
    const db = [...catalogue.snapshot.services.values()].find((service) => service.name === 'db')!;
    expect(db.instances[0]!.draining).toBe(true);
  });

  test('a stalled stream is made good by the next comparison', async () => {
    follow({ resyncInterval: 50 });
    await knows(['db', 'web']);
    agent.stalled = true;
    agent.become([a, { ...b, tags: { services: 'api:82' } }]);
    await knows(['api', 'web']);
  });

  test('an agent that hangs is unreachable within the timeout', async () => {
    follow({ resyncInterval: 50, timeout: 100 });
    await knows(['db', 'web']);
    agent.silent = true;
    await vi.waitFor(() => expect(state().state).toBe('unreachable'), soon);
    expect(state().lastError).toMatch(/no answer to (members|handshake) within 100 ms/);
    expect(names()).toEqual(['db', 'web']);
    agent.silent = false;
    await vi.waitFor(() => expect(state().state).toBe('synced'), soon);
  });

  test('an agent that speaks nonsense is left, and everything known stays', async () => {
    follow();
    await knows(['db', 'web']);
    agent.blurt(Buffer.from('ddffffffff', 'hex'));
    await vi.waitFor(
      () => expect(state().lastError).toMatch(/Serf RPC: a message has too many entries/),
      soon,
    );
    expect(names()).toEqual(['db', 'web']);
    await vi.waitFor(() => expect(state().state).toBe('synced'), soon);
  });

  test('an agent that was restarted and knows only itself is not believed until it joined', async () => {
    follow();
    await knows(['db', 'web']);
    await agent.close();
    agent.members = [a];
    await agent.listen();
    await vi.waitFor(() => expect(state().lastError).toMatch(/knows only itself/), soon);
    expect(state().state).toBe('unreachable');
    expect(names()).toEqual(['db', 'web']);
    agent.members = [a, { ...b, tags: { services: 'api:82' } }];
    await knows(['api', 'web']);
  });

  test('the key is presented; a wrong one is reported', async () => {
    await agent.close();
    agent = new FakeSerfAgent('right');
    agent.members = [a, b];
    await agent.listen();
    const directory = mkdtempSync(join(tmpdir(), 'mnreg-'));
    const authKeyFile = join(directory, 'key');
    try {
      writeFileSync(authKeyFile, 'wrong\n', { mode: 0o600 });
      follow({ authKeyFile });
      await vi.waitFor(() => expect(state().lastError).toMatch(/Invalid authentication token/), soon);
      writeFileSync(authKeyFile, 'right\n');
      chmodSync(authKeyFile, 0o644);
      await vi.waitFor(() => expect(state().lastError).toMatch(/expected mode 0600/), soon);
      chmodSync(authKeyFile, 0o600);
      await knows(['db', 'web']);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
