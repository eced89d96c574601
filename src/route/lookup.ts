import { endpointKey, type Ip, type OriginalDestination } from '../model/address.ts';
import type { Instance, Service } from '../model/service.ts';
import type { Claim, Snapshot } from '../model/snapshot.ts';

/** Where a captured connection goes. */
type RouteDecision =
  /** Any instance of the service. A strict service is never reached without the mesh. */
  | { readonly kind: 'service'; readonly service: Service }
  /** This instance and no other. */
  | { readonly kind: 'instance'; readonly service: Service; readonly instance: Instance }
  /** Several services as a whole, one of them perhaps strict: what is asked for there tells them apart. */
  | { readonly kind: 'shared'; readonly services: readonly Service[]; readonly strict: boolean }
  /** On to the original destination: nobody knows it. */
  | { readonly kind: 'passthrough' }
  /** The destination is this agent. */
  | { readonly kind: 'refuse'; readonly reason: 'loop' };

/** What the agent itself listens on. */
export interface OwnListeners {
  /** True for every address of this host, loopback included. */
  isOwnAddress(ip: Ip): boolean;
  /** Ports of the agent's listeners. */
  readonly ports: ReadonlySet<number>;
}

const LOOP: RouteDecision = Object.freeze({ kind: 'refuse', reason: 'loop' });
const UNKNOWN: RouteDecision = Object.freeze({ kind: 'passthrough' });

/**
 * Decisions by the claims they were made from. A delta that changes a service makes new claim lists for every
 * address of it, so a list that is still in the snapshot means what it meant. Finding an instance among a thousand
 * happens once, and a decided lookup allocates nothing but the key.
 */
const decided = new WeakMap<readonly Claim[], RouteDecision>();

/** What an address means (docs/architecture.md). */
export function lookup(
  snapshot: Snapshot,
  destination: OriginalDestination,
  own: OwnListeners,
): RouteDecision {
  if (own.ports.has(destination.port) && own.isOwnAddress(destination.ip)) return LOOP;
  const claims = snapshot.destinations.get(endpointKey(destination));
  if (claims === undefined) return UNKNOWN;
  let decision = decided.get(claims);
  if (decision === undefined) {
    decision = Object.freeze(decide(snapshot, claims));
    decided.set(claims, decision);
  }
  return decision;
}

/** Claims on whole services come first (see Snapshot), and they decide: an operator wrote them down. */
function decide(snapshot: Snapshot, claims: readonly Claim[]): RouteDecision {
  const whole: Service[] = [];
  let named: RouteDecision | undefined;
  for (const claim of claims) {
    const service = snapshot.services.get(claim.service);
    if (service === undefined) continue;
    if (claim.instance === undefined) {
      whole.push(service);
      continue;
    }
    // One process under several names is one instance: whichever name it goes by, the bytes reach it. The first by
    // name counts, but a strict one before all others, because it must not be reached under a lenient name.
    if (named?.kind === 'instance' && (named.service.mode === 'strict' || service.mode !== 'strict'))
      continue;
    const instance = service.instances.find((candidate) => candidate.id === claim.instance);
    if (instance !== undefined) named = { kind: 'instance', service, instance };
  }
  if (whole.length === 1) return { kind: 'service', service: whole[0]! };
  if (whole.length > 1) {
    return { kind: 'shared', services: whole, strict: whole.some(({ mode }) => mode === 'strict') };
  }
  return named ?? UNKNOWN;
}
