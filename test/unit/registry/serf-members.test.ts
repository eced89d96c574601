import { expect, test } from 'vitest';
import { parseIp } from '../../../src/model/address.ts';
import { SerfMembers } from '../../../src/registry/serf-members.ts';
import type { SerfMember } from '../../../src/registry/serf-rpc.ts';
import { contributionOf } from '../../../src/registry/serf-tags.ts';

const member = (name: string, ip: string, tags: Record<string, string>, status = 'alive'): SerfMember => ({
  name,
  ip: parseIp(ip)!,
  status,
  tags: new Map(Object.entries(tags)),
});
const read = (tags: Record<string, string>, name = 'h1') =>
  contributionOf(member(name, '10.0.0.1', tags), 'here');
const cluster = () => new SerfMembers({ zone: 'here', balance: 'round-robin' });

test('everything that tags can say', () => {
  const { services, node, problems } = read({
    services: 'web:8080, api ,db',
    port: '9000',
    'port.db': '5432',
    zone: 'a',
    mesh: '15008',
    'label.version': '2',
    'label.__proto__': 'x',
    'proto.web': 'http',
    role: 'something else',
  });
  expect(problems).toEqual([]);
  expect(
    Array.from(services, ([name, { instance, protocol }]) => [name, instance.address.port, protocol]),
  ).toEqual([
    ['web', 8080, 'http'],
    ['api', 9000, undefined],
    ['db', 5432, undefined],
  ]);
  const { instance } = services.values().next().value!;
  expect(instance).toMatchObject({
    id: '10.0.0.1:8080',
    node: 'h1',
    zone: 'a',
    weight: 100,
    draining: false,
  });
  expect(Object.entries(instance.labels)).toEqual([
    ['__proto__', 'x'],
    ['version', '2'],
  ]);
  expect(node).toEqual({ name: 'h1', zone: 'a', tunnel: { ip: '10.0.0.1', port: 15008 } });
});

test('mesh_name stands in for a member name that is none', () => {
  expect(read({ mesh: '1' }, 'Host_1').node).toBeUndefined();
  expect(read({ mesh: '1' }, 'Host_1').problems).toHaveLength(1);
  expect(read({ mesh: '1', mesh_name: 'host-1' }, 'Host_1').node?.name).toBe('host-1');
});

test('each mistake is reported with the member and costs only itself', () => {
  const { services, node, problems } = read({
    services: 'ok:1,Bad:2,noport,zero:0,big:65536,ok:3,,:5,x:1:2,ev\u001bil',
    zone: 'NOT A ZONE',
    mesh: '-1',
    'proto.ok': 'smtp',
    'label.': 'x',
  });
  expect([...services.keys()]).toEqual(['ok']);
  expect(services.values().next().value!.instance).toMatchObject({ zone: 'here', labels: {} });
  expect(services.values().next().value!.instance.node).toBeUndefined();
  expect(node).toBeUndefined();
  expect(problems).toHaveLength(12);
  for (const problem of problems) {
    expect(problem).toMatch(/^member "h1": /);
    expect(problem).not.toContain('\u001b');
  }
});

test.each(['left', 'failed', 'none', 'whatever'])('a member that is %s adds nothing', (status) => {
  const { services, node } = contributionOf(
    member('h', '10.0.0.1', { services: 'a:1', mesh: '1' }, status),
    'here',
  );
  expect(services.size).toBe(0);
  expect(node).toBeUndefined();
});

test('a change names only what the member touches', () => {
  const members = cluster();
  members.replace(
    [member('h1', '10.0.0.1', { services: 'web:1,db:2' }), member('h2', '10.0.0.2', { services: 'web:1' })],
    true,
  );
  expect(members.changes()).toBeUndefined();
  members.put(member('h2', '10.0.0.2', { services: 'web:1,api:3', mesh: '9' }));
  expect(members.changes()).toMatchObject({
    kind: 'change',
    services: [{ name: 'web', instances: [{}, {}] }, { name: 'api' }],
    removedServices: [],
    nodes: [{ name: 'h2' }],
  });
  members.remove('h2');
  expect(members.changes()).toMatchObject({
    services: [{ name: 'web', instances: [{ id: '10.0.0.1:1' }] }],
    removedServices: ['api'],
    removedNodes: ['h2'],
  });
});

test('disagreements are settled by the order of names, and reported while they last', () => {
  const members = cluster();
  const a = member('a', '10.0.0.1', { services: 'web:1', 'proto.web': 'http', mesh: '1', mesh_name: 'x' });
  const b = member('b', '10.0.0.1', { services: 'web:1', 'proto.web': 'tcp', mesh: '2', mesh_name: 'x' });
  const expected = { services: [{ protocol: 'http', instances: [{}] }], nodes: [{ tunnel: { port: 1 } }] };
  expect(members.replace([b, a], true)).toMatchObject(expected);
  expect(members.problems).toHaveLength(2);
  members.remove('b');
  members.changes();
  expect(members.problems).toEqual([]);
});
