import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Endpoint, type EndpointKey, endpointKey, type Ip } from '../../../src/model/address.ts';
import type {
  Instance,
  InstanceId,
  MeshNode,
  NodeName,
  Service,
  ServiceName,
} from '../../../src/model/service.ts';
import {
  applyDelta,
  type Claim,
  emptySnapshot,
  type Snapshot,
  type SnapshotDelta,
} from '../../../src/model/snapshot.ts';

// Few names and addresses, so that they meet.
const serviceName = fc.constantFrom('a', 'b', 'c', 'd') as fc.Arbitrary<ServiceName>;
const nodeName = fc.constantFrom('n1', 'n2', 'n3') as fc.Arbitrary<NodeName>;
const endpoint: fc.Arbitrary<Endpoint> = fc.record({
  ip: fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1') as fc.Arbitrary<Ip>,
  port: fc.constantFrom(80, 81),
});
const instance: fc.Arbitrary<Instance> = fc.record({
  id: fc.constantFrom('i1', 'i2', 'i3') as fc.Arbitrary<InstanceId>,
  address: endpoint,
  zone: fc.constant('z'),
  labels: fc.constant({}),
  weight: fc.constant(100),
  draining: fc.boolean(),
});
const service: fc.Arbitrary<Service> = fc.record({
  name: serviceName,
  protocol: fc.constant('tcp' as const),
  mode: fc.constant('permissive' as const),
  interchangeable: fc.boolean(),
  balance: fc.constant('round-robin' as const),
  hosts: fc.constant([]),
  addresses: fc.array(endpoint, { maxLength: 3 }),
  instances: fc.uniqueArray(instance, { maxLength: 3, selector: ({ id }) => id }),
});
const node: fc.Arbitrary<MeshNode> = fc.record({ name: nodeName, zone: fc.constant('z'), tunnel: endpoint });
const change: fc.Arbitrary<Omit<SnapshotDelta, 'base'>> = fc.record({
  services: fc.uniqueArray(service, { maxLength: 3, selector: ({ name }) => name }),
  removedServices: fc.uniqueArray(serviceName, { maxLength: 2 }),
  nodes: fc.uniqueArray(node, { maxLength: 2, selector: ({ name }) => name }),
  removedNodes: fc.uniqueArray(nodeName, { maxLength: 1 }),
});

function contents(snapshot: Snapshot) {
  return {
    services: new Map(snapshot.services),
    nodes: new Map(snapshot.nodes),
    destinations: new Map(snapshot.destinations),
  };
}

/** What the destinations must be, said once more and as plainly as possible. */
function claimsOfAll(services: Iterable<Service>): Map<EndpointKey, Claim[]> {
  const all = new Map<EndpointKey, Claim[]>();
  const add = (at: Endpoint, claim: Claim) => {
    const claims = all.get(endpointKey(at)) ?? [];
    const known = claims.some((c) => c.service === claim.service && c.instance === claim.instance);
    if (!known) all.set(endpointKey(at), [...claims, claim]);
  };
  const sorted = [...services].sort((x, y) => (x.name < y.name ? -1 : 1));
  for (const { name, addresses, interchangeable, instances } of sorted) {
    for (const at of addresses) add(at, { service: name });
    if (interchangeable) for (const { address } of instances) add(address, { service: name });
  }
  for (const { name, interchangeable, instances } of sorted) {
    if (!interchangeable)
      for (const { address, id } of instances) add(address, { service: name, instance: id });
  }
  return all;
}

describe('deltas', () => {
  test('applied one by one give what building from scratch gives', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 12 }), (changes) => {
        let snapshot = emptySnapshot;
        for (const delta of changes) snapshot = applyDelta(snapshot, { base: snapshot.version, ...delta });
        expect(snapshot.version).toBe(changes.length);
        const whole = applyDelta(emptySnapshot, {
          base: 0,
          services: [...snapshot.services.values()],
          removedServices: [],
          nodes: [...snapshot.nodes.values()],
          removedNodes: [],
        });
        expect(contents(snapshot)).toEqual(contents(whole));
        expect(new Map(snapshot.destinations)).toEqual(claimsOfAll(snapshot.services.values()));
      }),
      { numRuns: 2000 },
    );
  });

  test('leave older snapshots as they were', () => {
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 6 }), (changes) => {
        let snapshot = emptySnapshot;
        const seen: [Snapshot, ReturnType<typeof contents>][] = [];
        for (const delta of changes) {
          seen.push([snapshot, structuredClone(contents(snapshot))]);
          snapshot = applyDelta(snapshot, { base: snapshot.version, ...delta });
        }
        for (const [version, before] of seen) expect(contents(version)).toEqual(before);
      }),
      { numRuns: 500 },
    );
  });

  test('make a new list of claims for every address of a changed service, and for no other', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 6 }), change, (changes, last) => {
        let before = emptySnapshot;
        for (const delta of changes) before = applyDelta(before, { base: before.version, ...delta });
        const after = applyDelta(before, { base: before.version, ...last });
        const changed = new Set([...last.removedServices, ...last.services.map(({ name }) => name)]);
        for (const [key, claims] of after.destinations) {
          const old = before.destinations.get(key);
          if (old === claims) expect(claims.some((claim) => changed.has(claim.service))).toBe(false);
          else {
            const touched = [...(old ?? []), ...claims].some((claim) => changed.has(claim.service));
            expect(touched).toBe(true);
          }
        }
      }),
      { numRuns: 1000 },
    );
  });

  test('for another version are refused', () => {
    const delta = { base: 1, services: [], removedServices: [], nodes: [], removedNodes: [] };
    expect(() => applyDelta(emptySnapshot, delta)).toThrow(RangeError);
  });
});
