import type { Service } from '../model/service.ts';
import type { SnapshotDelta } from '../model/snapshot.ts';

/**
 * Instances in one part of a delta. Decoding and applying 250 instances takes a worker well under a millisecond;
 * 100,000 at once would stall it for 100–190 ms.
 */
export const INSTANCES_PER_PART = 250;

/**
 * Cuts a change into parts that a worker swallows without a pause, in order; at least one. A service is never cut: it is
 * routed on as a whole or not at all. `base` is the receiver's own version, which grows by one with each part.
 */
export function* deltaParts(change: Omit<SnapshotDelta, 'base'>, base: number): Generator<SnapshotDelta> {
  let version = base;
  let nodes = change.nodes.slice(0, INSTANCES_PER_PART);
  let removedNodes = change.removedNodes;
  let removedServices = change.removedServices;
  // Nodes first: an instance whose node is unknown would be reached without a tunnel.
  for (let at = INSTANCES_PER_PART; at < change.nodes.length; at += INSTANCES_PER_PART) {
    yield { base: version++, services: [], removedServices: [], nodes, removedNodes: [] };
    nodes = change.nodes.slice(at, at + INSTANCES_PER_PART);
  }
  let services: Service[] = [];
  let instances = 0;
  for (const service of change.services) {
    if (services.length > 0 && instances + service.instances.length > INSTANCES_PER_PART) {
      yield { base: version++, services, removedServices, nodes, removedNodes };
      services = [];
      instances = 0;
      nodes = [];
      removedNodes = [];
      removedServices = [];
    }
    services.push(service);
    instances += Math.max(1, service.instances.length);
  }
  yield { base: version, services, removedServices, nodes, removedNodes };
}
