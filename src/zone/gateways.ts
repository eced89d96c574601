import { LRUCache } from 'lru-cache';
import type { Endpoint } from '../model/address.ts';
import type { NodeName, ServiceName } from '../model/service.ts';

/** A zone-agent through which a zone is reached. */
export interface Gateway {
  readonly node: NodeName;
  /** Its tunnel listener. */
  readonly address: Endpoint;
}

/** Another zone and the ways to it. */
interface ZoneGateways {
  readonly zone: string;
  readonly gateways: readonly Gateway[];
}

/**
 * How a relayed session began. `gateway-failed`: no tunnel to the gateway, or it takes nothing new; says nothing
 * about what is behind it. `target-failed`: the gateway answered, but did not reach the service in the zone; says
 * nothing about other services behind the same gateway.
 */
type GatewayOutcome = 'reached' | 'gateway-failed' | 'target-failed';

/** A change of what is believed of a gateway, for log and metrics. */
export interface GatewayTransition {
  readonly gateway: NodeName;
  /** Set when only this service in this zone is concerned. */
  readonly behind: { readonly zone: string; readonly service: ServiceName | undefined } | undefined;
  readonly to: 'up' | 'down';
}

/** Pauses after a failure, in milliseconds; doubled with each failure in a row. */
interface GatewayBackoff {
  readonly base: number;
  readonly max: number;
}

/** Pairs of (gateway, zone, service) whose failures are remembered. Only failing ones are. */
const MAX_REMEMBERED = 10_000;

interface Failure {
  readonly failures: number;
  readonly until: number;
}

/** Chooses the gateway for a zone, and remembers which ones failed, for whom. One for each worker. */
export class Gateways {
  readonly #backoff: GatewayBackoff;
  readonly #now: () => number;
  readonly #random: () => number;
  readonly #onTransition: (transition: GatewayTransition) => void;
  readonly #zones = new Map<string, { readonly gateways: readonly Gateway[]; next: number }>();
  readonly #down = new Map<NodeName, Failure>();
  readonly #downBehind = new LRUCache<string, Failure>({ max: MAX_REMEMBERED });

  constructor(options: {
    readonly backoff: GatewayBackoff;
    readonly onTransition?: (transition: GatewayTransition) => void;
    /** Milliseconds, never going back. */
    readonly now?: () => number;
    /** From 0 up to 1. */
    readonly random?: () => number;
  }) {
    this.#backoff = options.backoff;
    this.#now = options.now ?? (() => performance.now());
    this.#random = options.random ?? Math.random;
    this.#onTransition = options.onTransition ?? (() => {});
  }

  /** The configured zones, at first and after each reload. Gateways that stay keep what is known of them. */
  configure(zones: readonly ZoneGateways[]): void {
    this.#zones.clear();
    for (const { zone, gateways } of zones) {
      // A random first one: agents that start together must not all begin with the same.
      this.#zones.set(zone, { gateways, next: Math.floor(this.#random() * gateways.length) });
    }
    const kept = new Set(zones.flatMap(({ gateways }) => gateways.map(({ node }) => node)));
    for (const node of this.#down.keys()) if (!kept.has(node)) this.#down.delete(node);
  }

  /** True when a way to the zone is configured. */
  has(zone: string): boolean {
    return this.#zones.has(zone);
  }

  /**
   * The gateways of a zone in the order in which to try them: those without known failures in turn, then those that
   * fail for this service, then those that fail altogether, soonest return first, because trying them is better
   * than refusing. `exclude` holds nodes that the session has passed already.
   */
  candidates(
    zone: string,
    service: ServiceName | undefined,
    exclude: readonly NodeName[] = [],
  ): readonly Gateway[] {
    const known = this.#zones.get(zone);
    if (known === undefined) return [];
    const { gateways } = known;
    const first = known.next;
    known.next = (first + 1) % gateways.length;
    const now = this.#now();
    const ranked: { gateway: Gateway; rank: number; until: number }[] = [];
    for (let i = 0; i < gateways.length; i++) {
      const gateway = gateways[(first + i) % gateways.length]!;
      if (exclude.includes(gateway.node)) continue;
      const down = pausedUntil(this.#down.get(gateway.node), now);
      const behind = pausedUntil(this.#downBehind.get(keyOf(gateway.node, zone, service)), now);
      const rank = down > 0 ? 2 : behind > 0 ? 1 : 0;
      ranked.push({ gateway, rank, until: rank === 0 ? 0 : Math.max(down, behind) });
    }
    // Array.prototype.sort is stable: equals stay in turn.
    return ranked.sort((a, b) => a.rank - b.rank || a.until - b.until).map(({ gateway }) => gateway);
  }

  /** What became of a session through a gateway. */
  report(gateway: NodeName, zone: string, service: ServiceName | undefined, outcome: GatewayOutcome): void {
    const key = keyOf(gateway, zone, service);
    if (outcome === 'gateway-failed') {
      const before = this.#down.get(gateway);
      // Only gateways that are configured: what is remembered is bounded by the configuration.
      if (!this.#configured(gateway)) return;
      this.#down.set(gateway, this.#next(before));
      if (before === undefined) this.#onTransition({ gateway, behind: undefined, to: 'down' });
      return;
    }
    // It answered, so the gateway itself is there.
    if (this.#down.delete(gateway)) this.#onTransition({ gateway, behind: undefined, to: 'up' });
    const before = this.#downBehind.get(key);
    if (outcome === 'target-failed') {
      this.#downBehind.set(key, this.#next(before));
      if (before === undefined) this.#onTransition({ gateway, behind: { zone, service }, to: 'down' });
    } else if (before !== undefined) {
      this.#downBehind.delete(key);
      this.#onTransition({ gateway, behind: { zone, service }, to: 'up' });
    }
  }

  #configured(node: NodeName): boolean {
    for (const { gateways } of this.#zones.values()) if (gateways.some((g) => g.node === node)) return true;
    return false;
  }

  /** Failures that come while the pause runs are of the same event and do not lengthen it. */
  #next(before: Failure | undefined): Failure {
    const now = this.#now();
    if (before !== undefined && before.until > now) return before;
    const failures = (before?.failures ?? 0) + 1;
    const pause = Math.min(this.#backoff.base * 2 ** (failures - 1), this.#backoff.max);
    // Half of it is random, so that agents do not come back all at once.
    return { failures, until: now + pause * (0.5 + this.#random() / 2) };
  }
}

function pausedUntil(failure: Failure | undefined, now: number): number {
  return failure !== undefined && failure.until > now ? failure.until : 0;
}

function keyOf(node: NodeName, zone: string, service: ServiceName | undefined): string {
  return `${node} ${zone} ${service ?? ''}`;
}
