import { describe, expect, test } from 'vitest';
import { parseIp } from '../../../src/model/address.ts';
import { parseServiceName } from '../../../src/model/service.ts';
import { memberStates, parseMember } from '../../../src/registry/serverset-member.ts';
import { type ServersetRoots, ServersetTree } from '../../../src/registry/serverset-tree.ts';

const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));
const said = (more: object = {}) =>
  bytes({
    serviceEndpoint: { host: '10.0.0.1', port: 80 },
    additionalEndpoints: { http: { host: '10.0.0.1', port: 8080 } },
    status: 'ALIVE',
    shard: 3,
    metadata: {},
    ...more,
  });
const main = new Set(['']);

describe('a member', () => {
  test('says its endpoints, node, zone and labels', () => {
    const metadata = { node: 'host-1', zone: 'dc1', version: '2' };
    expect(parseMember(said({ metadata }), new Set(['', 'http', 'toString']))).toEqual({
      alive: true,
      endpoints: new Map([
        ['', { host: '10.0.0.1', port: 80 }],
        ['http', { host: '10.0.0.1', port: 8080 }],
      ]),
      node: 'host-1',
      zone: 'dc1',
      labels: { shard: '3', version: '2' },
      problems: [],
    });
  });

  test.each(memberStates)('%s: only ALIVE counts', (status) => {
    expect(parseMember(said({ status }), main).alive).toBe(status === 'ALIVE');
  });

  test('small mistakes cost less than the member', () => {
    const { problems, node, labels } = parseMember(
      said({ shard: 'x', metadata: { node: 'Not One', n: 3 } }),
      main,
    );
    expect(problems).toEqual([
      'metadata.node: found "Not One"; expected a node name',
      'metadata "n" is no text, too long or too many',
    ]);
    expect([node, labels]).toEqual([undefined, {}]);
  });
});

describe('a tree of serversets', () => {
  const tree = (roots: ServersetRoots, ipOf = parseIp) =>
    new ServersetTree({ roots, zone: 'here', balance: 'round-robin', ipOf });
  const known = (of: ServersetTree) =>
    Object.fromEntries(
      of.full(true).services.map(({ name, instances }) => [name, instances.map((i) => i.id)]),
    );
  const put = (into: ServersetTree, path: string, members: Readonly<Record<string, Buffer>>) => {
    into.children(path, Object.keys(members));
    for (const [name, data] of Object.entries(members)) into.member(`${path}/${name}`, data);
  };

  test('paths with members are services, named by their last part or from the last to the first', () => {
    for (const [names, name] of [
      ['last', 'web'],
      ['path', 'web.prod'],
    ] as const) {
      const one = tree({ kind: 'tree', path: '/discovery', names });
      expect(one.children('/discovery', ['prod']).paths).toEqual([{ path: '/discovery/prod', isNew: true }]);
      one.children('/discovery/prod', ['web']);
      put(one, '/discovery/prod/web', { member_1: said() });
      expect(known(one)).toEqual({ [name]: ['10.0.0.1:80'] });
    }
  });

  test('the root may be the zookeeper root, or a serverset itself', () => {
    const whole = tree({ kind: 'tree', path: '/', names: 'path' });
    whole.children('/', ['a']);
    whole.children('/a', ['web']);
    put(whole, '/a/web', { member_1: said() });
    expect(known(whole)).toEqual({ 'web.a': ['10.0.0.1:80'] });
    const one = tree({ kind: 'tree', path: '/a/web', names: 'path' });
    put(one, '/a/web', { member_1: said() });
    expect(known(one)).toEqual({ web: ['10.0.0.1:80'] });
  });

  test('two paths of one name: the first is used and the other reported; then the other', () => {
    const one = tree({ kind: 'tree', path: '/d', names: 'last' });
    one.children('/d', ['a', 'b']);
    one.children('/d/a', ['web']);
    one.children('/d/b', ['web']);
    put(one, '/d/b/web', { member_1: said({ serviceEndpoint: { host: '10.0.0.2', port: 80 } }) });
    put(one, '/d/a/web', { member_1: said() });
    expect(known(one)).toEqual({ web: ['10.0.0.1:80'] });
    expect(one.problems).toEqual([
      'service web: /d/a/web and 1 other paths are called so; the first is used',
    ]);
    one.absent('/d/a');
    expect(one.changes()).toMatchObject({ services: [{ instances: [{ id: '10.0.0.2:80' }] }] });
    expect(one.problems).toEqual([]);
  });

  test('a member that a crash left behind does not hide the one that took its address', () => {
    const one = tree({ kind: 'tree', path: '/d', names: 'last' });
    one.children('/d', ['web']);
    const old = said({ metadata: { version: '1' } });
    put(one, '/d/web', { member_0000000002: said({ metadata: { version: '2' } }), member_0000000001: old });
    expect(one.full(true).services[0]!.instances).toMatchObject([{ labels: { version: '2' } }]);
    put(one, '/d/web', { member_0000000001: old });
    expect(one.full(true).services[0]!.instances).toMatchObject([{ labels: { version: '1' } }]);
  });

  test('a name of a path that is no service name is reported, without what could steer a terminal', () => {
    const one = tree({ kind: 'tree', path: '/d', names: 'last' });
    one.children('/d', ['We\u001bb']);
    put(one, '/d/We\u001bb', { member_1: said() });
    expect(known(one)).toEqual({});
    expect(one.problems).toEqual([
      '/d/We?b: its name is no service name; expected lower-case letters, digits, - and .',
    ]);
  });

  test('one path can be several services', () => {
    const named = (name: string, endpoint: string) => ({
      name: parseServiceName(name)!,
      path: '/x/web',
      endpoint,
    });
    const one = tree({ kind: 'services', services: [named('shop', ''), named('shop-http', 'http')] });
    expect(one.roots).toEqual(['/x/web']);
    expect(one.children('/x/web', ['below']).paths).toEqual([]);
    put(one, '/x/web', { member_1: said() });
    expect(known(one)).toEqual({ shop: ['10.0.0.1:80'], 'shop-http': ['10.0.0.1:8080'] });
  });

  test('a host that has no address yet is left out, and told when it has', () => {
    let ip = parseIp('nothing');
    const one = tree({ kind: 'tree', path: '/d', names: 'last' }, () => ip);
    one.children('/d', ['web']);
    put(one, '/d/web', { member_1: said({ serviceEndpoint: { host: 'h1', port: 80 } }) });
    expect(known(one)).toEqual({ web: [] });
    expect([...one.hosts]).toEqual(['h1']);
    ip = parseIp('10.0.0.9');
    one.moved(new Set(['h1']));
    expect(one.changes()).toMatchObject({ services: [{ instances: [{ id: '10.0.0.9:80' }] }] });
  });

  test('what lies deeper than is looked at, and late answers, add nothing', () => {
    const one = tree({ kind: 'tree', path: '/d', names: 'last' });
    let path = '/d';
    for (let depth = 0; depth < 40; depth++) {
      if (one.children(path, ['x']).paths.length === 0) break;
      path += '/x';
    }
    expect(path).toBe(`/d${'/x'.repeat(16)}`.slice(0, path.length));
    expect(one.problems).toEqual(['1 paths beyond a bound are left out']);
    one.member('/d/never/member_1', said());
    expect(one.children('/elsewhere', ['member_1'])).toEqual({ paths: [], members: [] });
    expect(known(one)).toEqual({});
  });
});
