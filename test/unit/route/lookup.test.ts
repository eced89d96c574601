import { describe, expect, test } from 'vitest';
import { type Endpoint, type OriginalDestination, parseEndpoint } from '../../../src/model/address.ts';
import type { Instance, InstanceId, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot } from '../../../src/model/snapshot.ts';
import { lookup } from '../../../src/route/lookup.ts';

const own = {
  isOwnAddress: (ip: string) => ip === '127.0.0.1' || ip === '10.0.0.1',
  ports: new Set([15001, 15008]),
};
const at = (text: string) => parseEndpoint(text) as Endpoint;

function instance(address: string, id = address): Instance {
  return { id: id as InstanceId, address: at(address), zone: 'a', labels: {}, weight: 100, draining: false };
}

function service(name: string, change: Partial<Service> = {}): Service {
  return {
    name: name as ServiceName,
    protocol: 'tcp',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances: [],
    ...change,
  };
}

function snapshotOf(...services: readonly Service[]): Snapshot {
  return next(emptySnapshot, services);
}

function next(
  base: Snapshot,
  services: readonly Service[],
  removedServices: readonly ServiceName[] = [],
): Snapshot {
  return applyDelta(base, { base: base.version, services, removedServices, nodes: [], removedNodes: [] });
}

const to = (snapshot: Snapshot, address: string) => lookup(snapshot, at(address) as OriginalDestination, own);

describe('an address', () => {
  test('that nobody knows is passed through', () => {
    expect(to(emptySnapshot, '10.9.9.9:80')).toEqual({ kind: 'passthrough' });
    const snapshot = snapshotOf(service('web', { instances: [instance('10.0.0.5:80')] }));
    expect(to(snapshot, '10.0.0.5:81')).toMatchObject({ kind: 'passthrough' });
    expect(to(snapshot, '[fd00::5]:80')).toMatchObject({ kind: 'passthrough' });
  });

  test('of an instance means that instance and no other', () => {
    const snapshot = snapshotOf(
      service('web', { instances: [instance('10.0.0.5:80'), instance('[fd00::6]:80')] }),
    );
    expect(to(snapshot, '[fd00::6]:80')).toMatchObject({
      kind: 'instance',
      service: { name: 'web' },
      instance: { id: '[fd00::6]:80' },
    });
  });

  test('of an interchangeable instance means the service', () => {
    const snapshot = snapshotOf(
      service('web', { interchangeable: true, instances: [instance('10.0.0.5:80')] }),
    );
    expect(to(snapshot, '10.0.0.5:80')).toMatchObject({ kind: 'service', service: { name: 'web' } });
  });

  test('that a service declares means the service, even where an instance listens', () => {
    const snapshot = snapshotOf(
      service('web', { addresses: [at('10.0.0.5:80')], instances: [instance('10.0.0.5:80')] }),
      service('admin', { instances: [instance('10.0.0.5:80')] }),
    );
    expect(to(snapshot, '10.0.0.5:80')).toMatchObject({ kind: 'service', service: { name: 'web' } });
  });

  test('that several services declare means all of them, and whether one of them is strict', () => {
    const shared = { addresses: [at('10.0.0.100:443')] };
    const a = service('a', shared);
    const [b, strict] = [service('b', shared), service('b', { ...shared, mode: 'strict' })];
    expect(to(snapshotOf(a, b), '10.0.0.100:443')).toEqual({
      kind: 'shared',
      services: [a, b],
      strict: false,
    });
    expect(to(snapshotOf(a, strict), '10.0.0.100:443')).toMatchObject({ kind: 'shared', strict: true });
  });

  test('of one process under several names goes by the first name, strict ones before others', () => {
    const instances = [instance('10.0.0.5:80')];
    const b = service('b', { instances });
    expect(to(snapshotOf(service('c', { instances }), b), '10.0.0.5:80')).toMatchObject({
      service: { name: 'b' },
    });
    for (const name of ['a', 'z']) {
      const strict = service(name, { instances, mode: 'strict' });
      expect(to(snapshotOf(b, strict, service('c', { instances })), '10.0.0.5:80')).toMatchObject({
        kind: 'instance',
        service: { name, mode: 'strict' },
      });
    }
  });

  test('of the agent itself is refused, other ports of this host are not', () => {
    const snapshot = snapshotOf(service('web', { instances: [instance('10.0.0.1:15001')] }));
    expect(to(snapshot, '127.0.0.1:15001')).toEqual({ kind: 'refuse', reason: 'loop' });
    expect(to(snapshot, '10.0.0.1:15001')).toEqual({ kind: 'refuse', reason: 'loop' });
    expect(to(snapshot, '10.0.0.1:15008')).toEqual({ kind: 'refuse', reason: 'loop' });
    expect(to(snapshot, '10.0.0.2:15008')).toMatchObject({ kind: 'passthrough' });
    expect(to(snapshot, '127.0.0.1:80')).toMatchObject({ kind: 'passthrough' });
  });
});

describe('a decision', () => {
  test('is made once for a snapshot, and anew when its service changed', () => {
    const first = snapshotOf(service('web', { instances: [instance('10.0.0.5:80')] }), service('other'));
    const decision = to(first, '10.0.0.5:80');
    expect(to(first, '10.0.0.5:80')).toBe(decision);
    const same = next(first, [service('other', { mode: 'strict' })]);
    expect(to(same, '10.0.0.5:80')).toBe(decision);
    const changed = next(same, [service('web', { mode: 'strict', instances: [instance('10.0.0.5:80')] })]);
    expect(to(changed, '10.0.0.5:80')).toMatchObject({ kind: 'instance', service: { mode: 'strict' } });
    expect(to(first, '10.0.0.5:80')).toBe(decision);
    const gone = next(changed, [], ['web' as ServiceName]);
    expect(to(gone, '10.0.0.5:80')).toMatchObject({ kind: 'passthrough' });
  });
});
