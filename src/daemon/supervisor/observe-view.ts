import type { ObserveAnswer, ObservedCalls } from '../../admin/api.ts';
import { type AllowEntry, parseProtected } from '../../capture/allow-list.ts';
import { coverage, proposeAllowList } from '../../capture/proposal.ts';
import { type Exemption, isDestinationExemption } from '../../capture/rules/exemption.ts';
import type { Config } from '../../config/schema.ts';
import type { EndpointKey } from '../../model/address.ts';
import type { Snapshot } from '../../model/snapshot.ts';
import type { Observer } from './observer.ts';

/** What the answers to `mesh-node observe` are made of. */
export interface ObserveView {
  readonly observer: Observer;
  readonly snapshot: Snapshot;
  readonly config: Config;
  /** The allow-list in force. */
  readonly exempt: readonly Exemption[];
}

/** The map of services, the busiest callers first: what the catalogue knows is shown as its service. */
export function observeAnswer(view: ObserveView, limit: number): ObserveAnswer {
  const { observer, snapshot } = view;
  const allowed = coverage(allowedDestinations(view));
  const calls = new Map<string, ObservedCalls>();
  for (const { caller, destination, count, firstSeen, lastSeen } of observer.observations) {
    const service = serviceAt(snapshot, destination);
    const key = `${caller} ${service ?? destination}`;
    const known = calls.get(key);
    calls.set(key, {
      caller,
      ...(service === undefined
        ? { destination, allowed: allowed(destination) }
        : { service, allowed: false }),
      count: count + (known?.count ?? 0),
      firstSeen: Math.min(firstSeen, known?.firstSeen ?? firstSeen),
      lastSeen: Math.max(lastSeen, known?.lastSeen ?? lastSeen),
    });
  }
  const { problem, ...status } = observer.status;
  return {
    ...status,
    ...(problem === undefined ? {} : { problem }),
    mode: view.config.capture.mode,
    calls: [...calls.values()].sort((a, b) => b.count - a.count).slice(0, limit),
    total: calls.size,
  };
}

/** An allow-list of what was called and is no service, without what the list in force covers already. */
export function observeProposal(view: ObserveView): string {
  const { observer, snapshot } = view;
  const allowed = coverage(allowedDestinations(view));
  const open = [...observer.observations].filter(
    ({ destination }) => serviceAt(snapshot, destination) === undefined && !allowed(destination),
  );
  return proposeAllowList(open, keysOf(snapshot));
}

/** Destinations that are never touched. */
export function allowedDestinations({
  config,
  exempt,
}: Pick<ObserveView, 'config' | 'exempt'>): readonly AllowEntry[] {
  return [...parseProtected(config.capture.protect), ...exempt.filter(isDestinationExemption)];
}

function serviceAt(snapshot: Snapshot, destination: EndpointKey): string | undefined {
  return snapshot.destinations.get(destination)?.[0]?.service;
}

function* keysOf(snapshot: Snapshot): Iterable<EndpointKey> {
  for (const [key] of snapshot.destinations) yield key;
}
