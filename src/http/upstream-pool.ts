import { endpointKey } from '../model/address.ts';
import type { ConnectionPath } from '../model/connection.ts';
import type { Instance, Service, ServiceName } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { Origin } from '../proxy/origin.ts';
import type { FoundUpstream } from '../proxy/seeker.ts';
import { Upstream, type UpstreamKeeper } from './upstream.ts';
import { UpstreamShelves } from './upstream-shelves.ts';

/** Idle channels of one worker. */
const MAX_IDLE = 4096;
/** Idle channels to one instance, of callers that share them. */
const MAX_IDLE_PER_INSTANCE = 256;
/** Below what common servers wait for another request: 5 s (node, Apache). */
const IDLE_MS = 4000;
/** Taken from what a server says itself: its clock began to run earlier. */
const IDLE_MARGIN_MS = 500;
/** No channel idles for longer, whatever a server says: it would be there for nothing. */
const MAX_IDLE_MS = 60_000;
/** A channel that was ended has this long for its other half. */
const LEAVE_MS = 2000;
/** How often idle and leaving channels are looked at: they go that much later at most. */
const SWEEP_MS = 250;

export interface UpstreamPoolDependencies {
  after(milliseconds: number, expired: () => void): () => void;
  /** Whether an instance is reached on this path, as policies are now. Absent: it is. */
  isWay?(service: Service, instance: Instance, path: ConnectionPath): boolean;
  /** A tunnel that has owed a sign of life for longer, in ms, is not trusted with another request. */
  agentPatience(): number;
}

/**
 * Channels to instances that may carry another request: by service, instance and callers, the last one used first. They
 * are given up before their server would do so, and when their instance is gone, moved or draining.
 */
export class UpstreamPool implements UpstreamKeeper {
  readonly #deps: UpstreamPoolDependencies;
  readonly #idle = new UpstreamShelves();
  readonly #leaving = new Set<Upstream>();
  #size = 0;
  #snapshot: Snapshot | undefined;
  /** Goes up with each catalogue. */
  #generation = 0;
  #sweeping: (() => void) | undefined;
  #closed = false;

  constructor(dependencies: UpstreamPoolDependencies) {
    this.#deps = dependencies;
  }

  /** Channels that wait for a request. */
  get size(): number {
    return this.#size;
  }

  /** An idle channel to this instance, for callers of this share. */
  take(service: ServiceName, instance: Instance, share: string): Upstream | undefined {
    const list = this.#idle.get(service, instance.id, share);
    for (let upstream = list?.pop(); upstream !== undefined; upstream = list?.pop()) {
      this.#size--;
      const { start } = upstream;
      const silence = start.agent?.silence ?? 0;
      if (isSame(start.instance, instance) && silence < this.#deps.agentPatience()) return upstream;
      this.retire(upstream);
    }
    return undefined;
  }

  /** Keeps a channel whose request is over, if that can be. `until`: of one that was taken, and not used. */
  put(upstream: Upstream, until?: number): void {
    const { channel } = upstream.start;
    const idleMs = idleTime(upstream.keptFor);
    const usable = upstream.reusable && channel.pendingBytes === 0 && idleMs > 0 && !this.#closed;
    if (!usable || this.#size >= MAX_IDLE || !this.#isStillWanted(upstream)) {
      this.retire(upstream);
      return;
    }
    const list = this.#idle.of(upstream);
    if (list.length >= MAX_IDLE_PER_INSTANCE) {
      this.retire(upstream);
      return;
    }
    list.push(upstream);
    this.#size++;
    upstream.until = until ?? performance.now() + idleMs;
    // Whatever happens to it is to be seen at once.
    channel.resume();
    this.#sweepLater();
  }

  /**
   * Keeps a channel that was opened before anybody asked for anything, for callers like the one it was opened for. It is
   * given up at once where it leads past an agent, or has waited for longer than a server may be expected to.
   */
  adopt(service: Service, origin: Origin, found: FoundUpstream, openedAt = performance.now()): boolean {
    const { channel, instance, token, opened } = found;
    token.finished();
    const upstream = new Upstream(
      {
        ...{ channel, instance, agent: opened?.agent, path: opened?.path ?? 'none' },
        ...{ service: service.name, share: shareOf(service, origin) },
      },
      this,
    );
    if (opened?.past === true || performance.now() - openedAt > IDLE_MS) this.retire(upstream);
    else this.put(upstream);
    return !this.#leaving.has(upstream);
  }

  /** Ends a channel that carries no request any more, cleanly; it is reset if the other side does not follow. */
  retire(upstream: Upstream): void {
    upstream.until = performance.now() + LEAVE_MS;
    this.#leaving.add(upstream);
    upstream.channel.end();
    upstream.channel.resume();
    this.#sweepLater();
  }

  /** It ended, or was reset. */
  lost(upstream: Upstream): void {
    if (this.#leaving.delete(upstream)) return;
    const { service, instance, share } = upstream.start;
    const list = this.#idle.get(service, instance.id, share);
    const place = list?.indexOf(upstream) ?? -1;
    if (place < 0) return;
    list!.splice(place, 1);
    this.#size--;
  }

  /** Gives up what leads to instances that this catalogue does not know, or not there, or that are draining. */
  use(snapshot: Snapshot): void {
    const before = this.#snapshot;
    this.#snapshot = snapshot;
    this.#generation++;
    if (this.#size === 0) return;
    this.#giveUp(
      (service) => snapshot.services.get(service) !== before?.services.get(service),
      (upstream) => this.#isWanted(upstream),
    );
  }

  /** Policies have changed: gives up what leads to instances that are reached otherwise now. */
  usePolicies(): void {
    this.#generation++;
    this.#giveUp(
      () => true,
      (upstream) => this.#isWanted(upstream),
    );
  }

  /** Ends every idle channel, and keeps none from now on. */
  close(): void {
    this.#closed = true;
    this.#giveUp(
      () => true,
      () => false,
    );
  }

  /** Gives up those that do not stay. */
  #giveUp(isMeant: (service: ServiceName) => boolean, stays: (upstream: Upstream) => boolean): void {
    const gone = this.#idle.sort(isMeant, stays);
    this.#size -= gone.length;
    for (const upstream of gone) this.retire(upstream);
  }

  /** Asked after each request: the answer is looked for once in each catalogue. */
  #isStillWanted(upstream: Upstream): boolean {
    if (upstream.wantedSince !== this.#generation) {
      if (!this.#isWanted(upstream)) return false;
      upstream.wantedSince = this.#generation;
    }
    return true;
  }

  #isWanted({ start: { service, instance, path } }: Upstream): boolean {
    const known = this.#snapshot?.services.get(service);
    if (this.#snapshot === undefined) return true;
    const current = known?.instances.find(({ id }) => id === instance.id);
    if (current === undefined || current.draining || !isSame(current, instance)) return false;
    return this.#deps.isWay?.(known!, current, path) !== false;
  }

  #sweepLater(): void {
    this.#sweeping ??= this.#deps.after(SWEEP_MS, () => this.#sweep());
  }

  #sweep(): void {
    this.#sweeping = undefined;
    const now = performance.now();
    for (const upstream of this.#leaving) {
      if (upstream.until > now) continue;
      this.#leaving.delete(upstream);
      upstream.channel.reset();
    }
    this.#giveUp(
      () => true,
      ({ until }) => until > now,
    );
    if (this.#size > 0 || this.#leaving.size > 0) this.#sweepLater();
  }
}

/**
 * Callers that may use one channel after the other: those of whom everything that its other end was told is true. An
 * instance that is shown its callers' addresses is shown each of them.
 */
export function shareOf(service: Service, { program, address }: Origin): string {
  const told = program ?? '';
  if (service.source === undefined || service.source === 'node' || address === undefined) return told;
  return `${told} ${endpointKey(address)}`;
}

function idleTime(keptFor: number | undefined): number {
  return keptFor === undefined ? IDLE_MS : Math.min(keptFor * 1000 - IDLE_MARGIN_MS, MAX_IDLE_MS);
}

/** Still the same place, also where the catalogue has another value for it by now. */
function isSame(a: Instance, b: Instance): boolean {
  if (a === b) return true;
  return a.address.ip === b.address.ip && a.address.port === b.address.port && a.node === b.node;
}
