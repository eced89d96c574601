import type { MeshNode, NodeName, Service, ServiceName } from '../model/service.ts';
import type { SnapshotDelta } from '../model/snapshot.ts';

/**
 * Instances (each service and node counts as one more) that one delta carries at most, so that a worker is busy
 * with one for about a millisecond; a larger change becomes several deltas. A single larger service is not split.
 */
const MAX_DELTA_WEIGHT = 1000;

/** A change of the snapshot, before it has its place in the row of versions. */
export type Changes = Omit<SnapshotDelta, 'base'>;

/** Cuts a change into parts of bounded weight: nodes first, so that no instance is known before its node. */
export function deltaParts(changes: Changes): Changes[] {
  const parts: Changes[] = [];
  let part = emptyPart();
  let weight = 0;
  const add = (more: number): typeof part => {
    if (weight > 0 && weight + more > MAX_DELTA_WEIGHT) {
      parts.push(part);
      part = emptyPart();
      weight = 0;
    }
    weight += more;
    return part;
  };
  for (const node of changes.nodes) add(1).nodes.push(node);
  for (const service of changes.services) add(1 + service.instances.length).services.push(service);
  for (const name of changes.removedServices) add(1).removedServices.push(name);
  for (const name of changes.removedNodes) add(1).removedNodes.push(name);
  if (weight > 0) parts.push(part);
  return parts;
}

/** A part that changes nothing. */
export function emptyPart() {
  return {
    services: [] as Service[],
    removedServices: [] as ServiceName[],
    nodes: [] as MeshNode[],
    removedNodes: [] as NodeName[],
  };
}
