import { describe, expect, it } from 'vitest';
import { deltaParts, INSTANCES_PER_PART } from '../../../src/daemon/delta-parts.ts';
import { type Endpoint, parseEndpoint } from '../../../src/model/address.ts';
import type { InstanceId, MeshNode, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot } from '../../../src/model/snapshot.ts';

function service(name: string, instances: number): Service {
  return {
    name: name as ServiceName,
    protocol: 'tcp',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances: Array.from({ length: instances }, (_, at) => ({
      id: `${at}` as InstanceId,
      address: parseEndpoint(`10.0.${at >> 8}.${at & 255}:80`) as Endpoint,
      zone: 'z',
      labels: {},
      weight: 100,
      draining: false,
    })),
  };
}

describe('deltaParts', () => {
  it('adds up to the change, with every part bounded and nodes ahead of services', () => {
    const services = Array.from({ length: 50 }, (_, at) => service(`s${at}`, 1 + at * 7));
    const nodes = Array.from(
      { length: 600 },
      (_, at): MeshNode => ({ name: `n${at}` as NodeName, zone: 'z', tunnel: parseEndpoint('10.0.0.1:1')! }),
    );
    const parts = [...deltaParts({ services, nodes, removedNodes: [], removedServices: [] }, 0)];
    let snapshot = emptySnapshot;
    for (const part of parts) {
      const instances = part.services.reduce((sum, s) => sum + s.instances.length, 0);
      expect(part.services.length === 1 || instances <= INSTANCES_PER_PART).toBe(true);
      if (part.services.length > 0) expect(snapshot.nodes.size + part.nodes.length).toBe(600);
      snapshot = applyDelta(snapshot, part);
    }
    expect(snapshot.services.size).toBe(50);
    expect(snapshot.nodes.size).toBe(600);
    expect(snapshot.version).toBe(parts.length);
  });

  it('gives one part for nothing, so that a new version is acknowledged', () => {
    expect([
      ...deltaParts({ services: [], nodes: [], removedNodes: [], removedServices: [] }, 7),
    ]).toMatchObject([{ base: 7 }]);
  });

  it('carries removals exactly once', () => {
    const parts = [
      ...deltaParts(
        {
          services: [service('a', 300), service('b', 300)],
          nodes: [],
          removedNodes: ['x' as NodeName],
          removedServices: ['y' as ServiceName],
        },
        0,
      ),
    ];
    expect(parts.flatMap((p) => p.removedServices)).toEqual(['y']);
    expect(parts.flatMap((p) => p.removedNodes)).toEqual(['x']);
  });
});
