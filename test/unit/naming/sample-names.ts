import { type Ip, parseEndpoint } from '../../../src/model/address.ts';
import type { Instance, InstanceId, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot } from '../../../src/model/snapshot.ts';
import type { NameSpace } from '../../../src/naming/answer.ts';
import { NameIndex } from '../../../src/naming/name-index.ts';

export function service(name: string, addresses: readonly string[], more: Partial<Service> = {}): Service {
  return {
    name: name as ServiceName,
    protocol: 'http',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances: addresses.map(
      (address): Instance => ({
        id: address as InstanceId,
        address: parseEndpoint(address)!,
        zone: 'dc1',
        labels: {},
        weight: 100,
        draining: false,
      }),
    ),
    ...more,
  };
}

export function snapshotOf(services: readonly Service[], before: Snapshot = emptySnapshot): Snapshot {
  const delta = { base: before.version, services, removedServices: [], nodes: [], removedNodes: [] };
  return applyDelta(before, delta);
}

export const virtual = (...ips: readonly string[]) => ({ virtual: ips as Ip[] });

/** `orders` on two ports, `users.shop` without an instance, `many` on 64 ports. */
export function nameSpace(domain = 'mesh'): NameSpace {
  const snapshot = snapshotOf([
    service('orders', ['10.0.0.1:8080', '10.0.0.2:80'], virtual('240.1.2.3', 'fd6d:6573:6800::7')),
    service('users.shop', [], virtual('241.0.0.9')),
    service('many', ['10.0.0.3:1'], {
      ...virtual('242.0.0.1'),
      ports: Array.from({ length: 64 }, (_, i) => 1000 + i),
    }),
  ]);
  return { domain, ttlMs: 5000, snapshot, index: new NameIndex() };
}
