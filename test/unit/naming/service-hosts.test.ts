import { expect, it } from 'vitest';
import { type Ip, parseEndpoint } from '../../../src/model/address.ts';
import type { ServiceName } from '../../../src/model/service.ts';
import { resolvedEndpoints, ServiceHosts } from '../../../src/naming/service-hosts.ts';
import { service } from './sample-names.ts';

it('knows who has a host name, and when there are others', () => {
  const hosts = new ServiceHosts();
  expect(hosts.set(service('a', []))).toBe(false);
  const one = service('a', [], { hosts: ['x', 'y'] });
  expect(hosts.set(one)).toBe(true);
  expect(hosts.set(one)).toBe(false);
  expect(hosts.set(service('b', [], { hosts: ['y'] }))).toBe(false);
  expect([...hosts.usersOf(['y'])]).toEqual(['a', 'b']);
  expect(hosts.set(service('a', [], { hosts: ['y'] }))).toBe(true);
  expect([...hosts.names]).toEqual(['y']);
  expect(hosts.remove('a' as ServiceName)).toBe(false);
  expect(hosts.remove('b' as ServiceName)).toBe(true);
  expect([[...hosts.names], hosts.services]).toEqual([[], []]);
});

it('means the service at its ports, but instances stay themselves', () => {
  const orders = service('orders', ['10.0.0.1:80', '10.0.0.2:8080'], {
    hosts: ['old', 'older', 'unknown'],
    addresses: [parseEndpoint('10.9.0.1:8080')!],
  });
  const answers: Record<string, readonly string[]> = {
    old: ['10.9.0.1', '10.0.0.1', 'fd00::9'],
    older: ['fd00::9'],
  };
  const found = resolvedEndpoints(orders, (host) => (answers[host] ?? []) as Ip[]);
  expect(found.map(({ ip, port }) => `${ip} ${port}`)).toEqual([
    '10.9.0.1 80',
    '10.0.0.1 8080',
    'fd00::9 80',
    'fd00::9 8080',
  ]);
  expect(resolvedEndpoints(service('x', ['10.0.0.1:80']), () => ['10.0.0.9' as Ip])).toEqual([]);
});

it('is bounded', () => {
  const many = service('many', [], { hosts: ['x'], ports: Array.from({ length: 64 }, (_, i) => 1 + i) });
  const addresses = Array.from({ length: 64 }, (_, i) => `10.0.0.${i}` as Ip);
  expect(resolvedEndpoints(many, () => addresses)).toHaveLength(1024);
});
