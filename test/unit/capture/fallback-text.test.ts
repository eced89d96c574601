import { describe, expect, test } from 'vitest';
import { SetPlanner } from '../../../src/capture/capture-plan.ts';
import { MAX_HOSTS_LINES, renderFallback } from '../../../src/capture/fallback-text.ts';
import type { Backend } from '../../../src/capture/netfilter.ts';
import { FallbackPlanner } from '../../../src/capture/rules/fallback.ts';
import { NOTHING_SAID, ruleBase } from '../../../src/capture/rules/input.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { type Ip, parseEndpoint } from '../../../src/model/address.ts';
import type { InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot } from '../../../src/model/snapshot.ts';

const nft: Backend = {
  kind: 'nft',
  version: 'v1.8.9',
  variant: '-nft',
  families: ['ipv4', 'ipv6'],
  withoutIpv6: undefined,
  backstop: ['ipv4', 'ipv6'],
};

const service = (name: string, virtual: readonly string[], more: Partial<Service> = {}): Service => ({
  name: name as ServiceName,
  protocol: 'tcp',
  mode: 'permissive',
  interchangeable: false,
  balance: 'round-robin',
  hosts: [],
  addresses: [],
  virtual: virtual as Ip[],
  instances: ['10.0.0.1:80', '[fd00::1]:80'].map((address) => ({
    id: address as InstanceId,
    address: parseEndpoint(address)!,
    node: 'a' as NodeName,
    zone: 'z',
    labels: {},
    weight: 100,
    draining: false,
  })),
  ...more,
});

function rendered(services: readonly Service[], flags: readonly string[] = [], backend = nft) {
  const config = loadConfig({ text: 'node: {name: a}', flags });
  const snapshot = applyDelta(emptySnapshot, {
    base: 0,
    services,
    removedServices: [],
    nodes: [],
    removedNodes: [],
  });
  const fallback = new FallbackPlanner({ node: 'a', zone: 'z', otherZones: [] });
  fallback.update(snapshot);
  const sets = new SetPlanner({ node: 'a', services: [] }).update(snapshot);
  const rules = { ...ruleBase(config, 990, [15008]), ...NOTHING_SAID, fallback: fallback.entries };
  return renderFallback({ rules, sets, backend, snapshot });
}

const orders = service('orders', ['240.0.0.1', 'fd6d::1']);
const vault = service('vault', ['240.0.0.2'], { mode: 'strict' });

describe('what holds without an agent', () => {
  test('virtual addresses, refusals and routes; nothing that redirects, nothing that asks a responder', () => {
    const texts = rendered([orders, vault]);
    const ipv4 = texts['rules-ipv4']!;
    expect(ipv4).toMatch(/^# backend nft\n/);
    expect(ipv4).toMatch(/\nCOMMIT\n# end\n$/);
    expect(ipv4).toContain(
      '-A MESH_VIRT -d 240.0.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1:80',
    );
    expect(ipv4).not.toContain('240.0.0.2/32');
    expect(ipv4).toContain('--match-set MESH_STRICT4 dst,dst');
    expect(ipv4).not.toMatch(/-j REDIRECT|MESH_DNS|MESH_ALIVE/);
    expect(texts['rules-ipv6']).toContain('--to-destination [fd00::1]:80');
    expect(texts.routes).toBe(
      '-4 240.0.0.0/4 dev lo proto 109\n-6 fd6d:6573:6800::/48 dev lo proto 109\n# end\n',
    );
  });

  test('only sets that a rule names, with their members', () => {
    const lines = rendered([orders, vault]).sets!.split('\n');
    const names = lines.filter((line) => line.startsWith('create')).map((line) => line.split(' ')[1]);
    expect(names).toEqual([
      ...['MESH_STRICT4', 'MESH_HOST4', 'MESH_BESIDE4', 'MESH_PORT4'],
      ...['MESH_STRICT6', 'MESH_HOST6', 'MESH_BESIDE6', 'MESH_PORT6'],
    ]);
    expect(lines).toContain('add MESH_STRICT4 240.0.0.2,tcp:80');
    expect(lines).toContain('add MESH_PORT6 80');
    expect(lines.slice(-2)).toEqual(['# end', '']);
  });

  test('names of all services: those of strict ones are refused, and not unknown', () => {
    expect(rendered([vault, orders], ['names.domain=corp.mesh']).hosts).toBe(
      '240.0.0.1 orders.corp.mesh\nfd6d::1 orders.corp.mesh\n240.0.0.2 vault.corp.mesh\n# end\n',
    );
  });

  test('not more names than a hosts file should have', () => {
    const many = Array.from({ length: MAX_HOSTS_LINES + 5 }, (_, at) =>
      service(`s${String(at).padStart(5, '0')}`, [`240.1.${at >> 8}.${at & 255}`]),
    );
    const lines = rendered(many).hosts!.split('\n');
    expect(lines).toHaveLength(MAX_HOSTS_LINES + 2);
    expect(lines[0]).toBe('240.1.0.0 s00000.mesh');
  });

  test('a family that is not used holds nothing; another backend says so', () => {
    const texts = rendered([orders], [], { ...nft, kind: 'legacy', variant: '-legacy', families: ['ipv4'] });
    expect(texts['rules-ipv6']).toBe('# backend legacy\n# end\n');
    expect(texts.sets).not.toContain('inet6');
    expect(rendered([orders], [], { ...nft, variant: '' })['rules-ipv4']).toMatch(/^# backend plain\n/);
  });

  test('no virtual address and no strict service: nothing has to hold', () => {
    const off = ['names.ipv4=off', 'names.ipv6=off'];
    const { hosts, ...rest } = rendered([service('orders', [])], off);
    expect(hosts).toBe('# end\n');
    expect(Object.values(rest)).toEqual([undefined, undefined, undefined, undefined]);
    expect(rendered([service('vault', [], { mode: 'strict' })], off).sets).toContain('10.0.0.1,tcp:80');
  });
});
