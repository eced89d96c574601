import type { ErrorCode } from '../model/errors.ts';
import type { PeerIdentity } from '../model/peer.ts';
import type { MeshNode, NodeName } from '../model/service.ts';

/** A session that a peer asks a zone-agent to carry towards a node. */
interface RelayTarget {
  readonly zone: string;
  readonly node: NodeName;
  /** Zone-agents that it passed already, in order. */
  readonly via: readonly NodeName[];
}

/** What becomes of it. */
type RelayVerdict =
  /** The node stands in this zone: plain TCP to its tunnel listener (the session inside is encrypted end to end). */
  | { readonly kind: 'deliver'; readonly node: MeshNode }
  /** On through a gateway of that zone, none of those in `via`. */
  | { readonly kind: 'forward'; readonly zone: string }
  | { readonly kind: 'refuse'; readonly code: ErrorCode; readonly detail: string };

/** What a zone-agent knows. */
interface RelayContext {
  /** Its own name and zone. */
  readonly node: NodeName;
  readonly zone: string;
  /** Relays that one session may pass, this one included. */
  readonly maxHops: number;
  findNode(name: NodeName): MeshNode | undefined;
  /** True when gateways of the zone are configured. */
  reaches(zone: string): boolean;
}

/**
 * Whether a zone-agent carries a session, and where to. Every node of the trust domain may ask on its own behalf
 * (who it is towards the target is settled end to end, inside); what comes from elsewhere is taken only from
 * another zone-agent, which must be the last in `via`. Only nodes of the mesh are ever dialled, never an address
 * that a peer names.
 */
export function judgeRelay(target: RelayTarget, peer: PeerIdentity, context: RelayContext): RelayVerdict {
  const { via } = target;
  if (via.includes(context.node)) return refuse('loop', `it passed ${context.node} before`);
  if (via.length >= context.maxHops) return refuse('loop', `it passed ${via.length} zone-agents already`);
  if (new Set(via).size !== via.length) return refuse('loop', 'it passed a zone-agent twice');
  if (via.length > 0) {
    if (!peer.relay) return refuse('denied', `${peer.node} is no zone-agent and may not pass on for others`);
    if (via.at(-1) !== peer.node) {
      return refuse('denied', `${peer.node} says that it came through ${via.at(-1)}`);
    }
  }
  if (target.zone !== context.zone) {
    return context.reaches(target.zone)
      ? { kind: 'forward', zone: target.zone }
      : refuse('unreachable', `no gateway to zone ${target.zone}`);
  }
  const node = context.findNode(target.node);
  if (node === undefined) return refuse('unreachable', `no node ${target.node} in zone ${context.zone}`);
  if (node.zone !== context.zone) {
    return refuse('unreachable', `node ${node.name} stands in zone ${node.zone}, not in ${context.zone}`);
  }
  return { kind: 'deliver', node };
}

function refuse(code: ErrorCode, detail: string): RelayVerdict {
  return { kind: 'refuse', code, detail };
}
