import { describe, expect, test } from 'vitest';
import { type Endpoint, type Ip, parseEndpoint } from '../../../src/model/address.ts';
import type { InstanceId, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot } from '../../../src/model/snapshot.ts';
import { NamedRoutes, normalHost, serviceNamed } from '../../../src/route/by-name.ts';

const own = { isOwnAddress: (ip: string) => ip === '127.0.0.1', ports: new Set([15003]) };
const at = (text: string) => parseEndpoint(text) as Endpoint;

function service(name: string, change: Partial<Service> = {}): Service {
  return {
    ...{ name: name as ServiceName, protocol: 'http', mode: 'permissive', interchangeable: false },
    ...{ balance: 'round-robin', hosts: [], addresses: [], instances: [], ports: [80] },
    ...change,
  };
}

function next(base: Snapshot, services: readonly Service[], removed: readonly string[] = []): Snapshot {
  const removedServices = removed as readonly ServiceName[];
  return applyDelta(base, { base: base.version, services, removedServices, nodes: [], removedNodes: [] });
}

const web = service('web', {
  ...{ hosts: ['www.example.com', 'both.example.com'], ports: [80, 8080] },
  ...{ virtual: ['240.1.2.3' as Ip], addresses: [at('10.0.0.9:80')] },
  instances: [
    {
      ...{ id: 'one' as InstanceId, address: at('10.0.0.1:8080'), zone: 'z' },
      ...{ labels: {}, weight: 100, draining: false },
    },
  ],
});
const api = service('api.shop', { hosts: ['both.example.com'], ports: [443] });
const catalogue = next(emptySnapshot, [web, api]);

function find(text: string, port?: number, snapshot = catalogue, usual = 80) {
  return new NamedRoutes(own, 'mesh').find(snapshot, text, port, usual);
}

describe('a name', () => {
  test.each(['web', 'WEB', 'web.', 'web.mesh', 'Web.Mesh.', 'www.example.com', 'WWW.example.COM.'])(
    '%s means the service',
    (name) => {
      for (const port of [undefined, 80, 8080]) {
        expect(find(name, port)).toEqual({ kind: 'service', service: web });
      }
    },
  );

  test('of a service with a dot, too', () => {
    expect(find('api.shop')).toEqual({ kind: 'service', service: api });
    expect(find('api.shop.mesh', 443)).toEqual({ kind: 'service', service: api });
  });

  test('means the service at its ports only, and says which these are', () => {
    expect(find('web.mesh', 81)).toMatchObject({ kind: 'refuse', reason: 'refused' });
    expect(find('web', 81)).toMatchObject({ detail: 'web has no port 81, but 80, 8080' });
    // Its own place for other ports: whoever is there was reached before, too.
    expect(find('www.example.com', 22)).toEqual({ kind: 'unknown', host: 'www.example.com' });
  });

  test('of several services means the one with the port', () => {
    expect(find('both.example.com', 8080)).toEqual({ kind: 'service', service: web });
    expect(find('both.example.com', 443)).toEqual({ kind: 'service', service: api });
    expect(find('both.example.com')).toEqual({ kind: 'unknown', host: 'both.example.com' });
  });

  test('that nobody knows is for DNS, unless it is below the domain', () => {
    expect(find('Example.ORG.', 80)).toEqual({ kind: 'unknown', host: 'example.org' });
    expect(find('ghost.mesh', 80)).toMatchObject({ kind: 'refuse', reason: 'no-service' });
    expect(find('mesh')).toEqual({ kind: 'unknown', host: 'mesh' });
    for (const none of ['', '.', 'x'.repeat(254)]) {
      expect(find(none)).toMatchObject({ kind: 'refuse', reason: 'no-service' });
    }
  });
});

describe('an address', () => {
  test('means what it means when it is called', () => {
    expect(find('240.1.2.3', 8080)).toEqual({ kind: 'service', service: web });
    expect(find('10.0.0.9')).toEqual({ kind: 'service', service: web });
    expect(find('10.0.0.1', 8080)).toMatchObject({ kind: 'instance', instance: { id: 'one' } });
    expect(find('10.0.0.1', 443)).toEqual({ kind: 'address', endpoint: at('10.0.0.1:443') });
    expect(find('::ffff:10.0.0.9')).toEqual({ kind: 'service', service: web });
    expect(find('127.0.0.1', 15003)).toMatchObject({ kind: 'refuse', reason: 'loop' });
  });

  test('has the usual port where none was written', () => {
    expect(find('10.7.7.7', undefined, catalogue, 443)).toEqual({
      kind: 'address',
      endpoint: at('10.7.7.7:443'),
    });
  });

  test('of several services is theirs no longer when one is strict', () => {
    const addresses = [at('10.0.0.7:80')];
    const open = next(emptySnapshot, [service('a', { addresses }), service('b', { addresses })]);
    expect(find('10.0.0.7', 80, open)).toEqual({ kind: 'address', endpoint: addresses[0] });
    const closed = next(open, [service('b', { addresses, mode: 'strict' })]);
    expect(find('10.0.0.7', 80, closed)).toMatchObject({ kind: 'refuse', reason: 'configuration' });
  });
});

describe('what changes', () => {
  test('is followed, at the cost of the change', () => {
    const routes = new NamedRoutes(own, 'mesh');
    const known = (snapshot: Snapshot, host: string) => routes.find(snapshot, host, undefined, 80).kind;
    expect(known(catalogue, 'both.example.com')).toBe('unknown');
    const fewer = next(catalogue, [], ['api.shop']);
    expect(known(fewer, 'both.example.com')).toBe('service');
    const other = next(fewer, [service('web', { hosts: ['new.example.com', 'new.example.com'] })]);
    expect(known(other, 'both.example.com')).toBe('unknown');
    expect(known(other, 'new.example.com')).toBe('service');
    expect(known(next(other, [], ['web']), 'new.example.com')).toBe('unknown');

    let looked = 0;
    const counted = new Proxy(other.services, {
      get: (target, key) => {
        if (key === 'values') looked++;
        const value = Reflect.get(target, key, target) as unknown;
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    known({ ...other, services: counted }, 'new.example.com');
    expect(looked).toBe(0);
  });
});

describe('one of several services', () => {
  test('is found by its name, below the domain, and by a host that only it has', () => {
    const named = (text: string) => serviceNamed([web, api], text, 'mesh')?.name;
    expect(named('WEB')).toBe('web');
    expect(named('api.shop.mesh.')).toBe('api.shop');
    expect(named('www.example.com')).toBe('web');
    expect(named('both.example.com')).toBeUndefined();
    expect(named('other')).toBeUndefined();
    expect(named('')).toBeUndefined();
  });
});

test('names are compared in lower case, without the final dot', () => {
  expect(normalHost('A.b.')).toBe('a.b');
  expect(normalHost('.')).toBeUndefined();
  expect(normalHost('x'.repeat(254))).toBeUndefined();
});
