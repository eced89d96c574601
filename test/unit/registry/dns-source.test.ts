import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { parseIp } from '../../../src/model/address.ts';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { type DnsService, DnsSource, type DnsSourceOptions } from '../../../src/registry/dns-source.ts';
import { DnsServer } from './dns-server.ts';
import { context, quiet, type Rig, type Said, sourceConformance } from './source.conformance.ts';

const looked = (...names: string[]): DnsService[] =>
  names.map((name) => ({
    name,
    srv: `_x._tcp.${name}.test`,
    mode: 'permissive',
  }));

const source = (server: DnsServer, more: Partial<DnsSourceOptions> = {}) =>
  new DnsSource({
    services: looked('web', 'db'),
    servers: [{ ip: parseIp('127.0.0.1')!, port: server.port }],
    minInterval: 30,
    maxInterval: 60,
    timeout: 1000,
    context,
    ...more,
  });

/** Records of dnsmasq: each address is a host. */
const records = (services: readonly Said[]) =>
  services.flatMap(({ name, instances }) =>
    instances.flatMap(({ ip, port }) => {
      const host = `h${ip.replaceAll('.', '-')}.test`;
      return [`--srv-host=_x._tcp.${name}.test,${host},${port}`, `--host-record=${host},${ip}`];
    }),
  );

sourceConformance('DNS SRV (dnsmasq)', async (): Promise<Rig> => {
  const server = new DnsServer();
  await server.listen();
  let said: readonly Said[] = [];
  return {
    say: async (services) => {
      said = services;
      await server.become(records(services));
    },
    sayNonsense: () => server.become([...records(said), '--srv-host=_x._tcp.web.test,nowhere.test,80,0,1']),
    cutOff: () => server.close(),
    comeBack: () => server.listen(),
    close: () => server.stop(),
    source: () => source(server),
  };
});

describe('the DNS source', () => {
  let server: DnsServer;
  let catalogue: Catalogue;
  const soon = { timeout: 15_000, interval: 5 };
  const follow = (options: Partial<DnsSourceOptions> = {}) => {
    catalogue = new Catalogue([source(server, options)], quiet);
    catalogue.start();
  };
  const state = () => catalogue.status.registries[0]!;
  const service = (name: string) =>
    [...catalogue.snapshot.services.values()].find((each) => each.name === name);
  const shares = (name: string) =>
    Object.fromEntries(service(name)?.instances.map(({ id, weight }) => [id, weight]) ?? []);
  const synced = () => vi.waitFor(() => expect(state().state).toBe('synced'), soon);

  beforeEach(async () => {
    server = new DnsServer();
    await server.listen();
  });
  afterEach(async () => {
    await catalogue.stop();
    await server.stop();
  });

  test('takes the lowest priority, weights, both families, the zone and the protocol', async () => {
    await server.become([
      '--srv-host=_x._tcp.web.test,a.test,81,1,30',
      '--srv-host=_x._tcp.web.test,b.test,82,1,0',
      '--srv-host=_x._tcp.web.test,c.test,83,2,100',
      '--host-record=a.test,127.0.1.1,::1',
      '--host-record=b.test,127.0.1.2',
      '--host-record=c.test,127.0.1.3',
    ]);
    follow({ services: looked('web').map((each) => ({ ...each, zone: 'dc7', protocol: 'http' })) });
    await synced();
    expect(shares('web')).toEqual({ '127.0.1.1:81': 15, '[::1]:81': 15, '127.0.1.2:82': 1 });
    expect(service('web')).toMatchObject({ protocol: 'http', mode: 'permissive', balance: 'round-robin' });
    expect(service('web')!.instances.map(({ zone }) => zone)).toEqual(['dc7', 'dc7', 'dc7']);
    await server.become(['--srv-host=_x._tcp.web.test,c.test,83,2,0', '--host-record=c.test,127.0.1.3']);
    await vi.waitFor(() => expect(shares('web')).toEqual({ '127.0.1.3:83': 100 }), soon);
  });

  test('a record without target says that there is no such service', async () => {
    await server.become(records([{ name: 'web', instances: [{ ip: '127.0.1.1', port: 80 }] }]));
    follow();
    await vi.waitFor(() => expect(service('web')).toBeDefined(), soon);
    await server.become(['--srv-host=_x._tcp.web.test']);
    await vi.waitFor(() => expect(service('web')).toBeUndefined(), soon);
    expect(state().problems).toEqual([]);
  });

  test('what a server refuses removes nothing, and costs no other service', async () => {
    const both = records([
      { name: 'web', instances: [{ ip: '127.0.1.1', port: 80 }] },
      { name: 'db', instances: [{ ip: '127.0.1.1', port: 81 }] },
    ]);
    await server.become(both);
    follow();
    await vi.waitFor(() => expect(catalogue.snapshot.services.size).toBe(2), soon);
    const refused: string[] = [];
    // Every answer about db becomes SERVFAIL: the last four bits of the second byte of flags.
    server.bend = (answer) => {
      if (!answer.includes('\x02db\x04test')) return answer;
      refused.push('db');
      const bent = Buffer.from(answer);
      bent[3] = (bent[3]! & 0xf0) | 2;
      return bent;
    };
    await server.become(records([{ name: 'web', instances: [{ ip: '127.0.1.2', port: 80 }] }]));
    await vi.waitFor(() => expect(shares('web')).toEqual({ '127.0.1.2:80': 100 }), soon);
    await vi.waitFor(() => expect(state().state).toBe('unreachable'), soon);
    expect(state().lastError).toMatch(/^SRV _x._tcp.db.test: ESERVFAIL$/);
    expect(shares('db')).toEqual({ '127.0.1.1:81': 100 });
    expect(refused.length).toBeGreaterThan(0);
    server.bend = (answer) => answer;
    await vi.waitFor(() => expect(service('db')).toBeUndefined(), soon);
    await synced();
  });

  test('a server that is silent is unreachable within the timeout', async () => {
    await server.become(records([{ name: 'web', instances: [{ ip: '127.0.1.1', port: 80 }] }]));
    follow({ timeout: 200 });
    await vi.waitFor(() => expect(service('web')).toBeDefined(), soon);
    server.silent = true;
    await vi.waitFor(() => expect(state().state).toBe('unreachable'), soon);
    expect(state().lastError).toMatch(/no answer within 200 ms|ETIMEOUT/);
    expect(service('web')).toBeDefined();
    server.silent = false;
    await synced();
  });

  test('looks again when the addresses end, within the bounds', async () => {
    await server.become([
      ...records([{ name: 'web', instances: [{ ip: '127.0.1.1', port: 80 }] }]),
      '--local-ttl=1',
    ]);
    follow({ minInterval: 10, maxInterval: 60_000 });
    await synced();
    const before = server.questions;
    const since = performance.now();
    await vi.waitFor(() => expect(server.questions).toBeGreaterThan(before), soon);
    expect(performance.now() - since).toBeGreaterThan(700);
  });
});
