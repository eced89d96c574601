import type { ConnectionPath } from '../model/connection.ts';
import type { ServicePolicy } from '../model/policy.ts';
import type { Instance, MeshNode, NodeName, Service } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';

/** How an instance is reached. */
export interface Way {
  readonly path: Extract<ConnectionPath, 'local' | 'direct' | 'tunnel' | 'relay' | 'none'>;
  /** The agent at its end; with `tunnel` and `relay`. */
  readonly node?: MeshNode;
}

interface Standpoint {
  readonly node: NodeName;
  readonly zone: string;
  readonly snapshot: Snapshot;
  readonly policy: ServicePolicy;
  /** Whether zone-agents lead to this zone. */
  reaches(zone: string): boolean;
}

const LOCAL: Way = Object.freeze({ path: 'local' });
const DIRECT: Way = Object.freeze({ path: 'direct' });
const NONE: Way = Object.freeze({ path: 'none' });

/** The way that is meant for an instance, seen from this host. `none`: a strict service without an agent there. */
export function wayTo(service: Service, instance: Instance, from: Standpoint): Way {
  if (instance.node === from.node) return LOCAL;
  const node = instance.node === undefined ? undefined : from.snapshot.nodes.get(instance.node);
  if (node === undefined) return service.mode === 'permissive' ? DIRECT : NONE;
  if (node.zone !== from.zone && from.reaches(node.zone)) return { path: 'relay', node };
  // Two hops: operators know that the hosts of this service can be reached without their agents.
  if (service.mode === 'permissive' && from.policy.hops === 'two') return DIRECT;
  return { path: 'tunnel', node };
}
