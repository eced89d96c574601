import { endpointKey } from '../model/address.ts';
import type { Instance, Service, ServiceName } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { Origin } from '../proxy/origin.ts';
import type { FoundUpstream } from '../proxy/search.ts';
import { Upstream, type UpstreamKeeper } from './upstream.ts';

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
  /** A tunnel that has owed a sign of life for longer, in ms, is not trusted with another request. */
  agentPatience(): number;
}

/**
 * Channels to instances that may carry another request: by service, instance and callers, the last one used first. They
 * are given up before their server would do so, and when their instance is gone, moved or draining.
 */
export class UpstreamPool implements UpstreamKeeper {
  readonly #deps: UpstreamPoolDependencies;
  readonly #idle = new Map<string, Upstream[]>();
  readonly #leaving = new Set<Upstream>();
  #size = 0;
  #snapshot: Snapshot | undefined;
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
    const list = this.#idle.get(keyOf(service, instance, share));
    for (let upstream = list?.pop(); upstream !== undefined; upstream = list?.pop()) {
      this.#size--;
      const { start } = upstream;
      const silence = start.agent?.silence ?? 0;
      if (isSame(start.instance, instance) && silence < this.#deps.agentPatience()) return upstream;
      this.retire(upstream);
    }
    return undefined;
  }

  /** Keeps a channel whose request is over, if that can be. */
  put(upstream: Upstream): void {
    const { service, instance, share, channel } = upstream.start;
    const idleMs = idleTime(upstream.keptFor);
    const usable = upstream.reusable && channel.pendingBytes === 0 && idleMs > 0 && !this.#closed;
    if (!usable || this.#size >= MAX_IDLE || !this.#isWanted(upstream)) {
      this.retire(upstream);
      return;
    }
    const key = keyOf(service, instance, share);
    const list = this.#idle.get(key);
    if (list === undefined) this.#idle.set(key, [upstream]);
    else if (list.length < MAX_IDLE_PER_INSTANCE) list.push(upstream);
    else {
      this.retire(upstream);
      return;
    }
    this.#size++;
    upstream.until = performance.now() + idleMs;
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
    const list = this.#idle.get(keyOf(service, instance, share));
    const place = list?.indexOf(upstream) ?? -1;
    if (place < 0) return;
    list!.splice(place, 1);
    this.#size--;
  }

  /** Gives up what leads to instances that this catalogue does not know, or not there, or that are draining. */
  use(snapshot: Snapshot): void {
    const before = this.#snapshot;
    this.#snapshot = snapshot;
    if (this.#size === 0) return;
    this.#giveUp(
      ({ start: { service } }) => snapshot.services.get(service) !== before?.services.get(service),
    );
  }

  /** Ends every idle channel, and keeps none from now on. */
  close(): void {
    this.#closed = true;
    this.#giveUp(() => true);
  }

  /** Gives up those of the channels meant that are not wanted. */
  #giveUp(isMeant: (upstream: Upstream) => boolean): void {
    for (const [key, list] of this.#idle) {
      const first = list[0];
      if (first !== undefined && !isMeant(first)) continue;
      this.#keep(key, list, (upstream) => !this.#closed && this.#isWanted(upstream));
    }
  }

  /** Gives up those of a list that do not stay, and the list with the last of them. */
  #keep(key: string, list: readonly Upstream[], stays: (upstream: Upstream) => boolean): void {
    const kept: Upstream[] = [];
    const gone: Upstream[] = [];
    for (const upstream of list) (stays(upstream) ? kept : gone).push(upstream);
    if (kept.length === 0) this.#idle.delete(key);
    else if (gone.length > 0) this.#idle.set(key, kept);
    this.#size -= gone.length;
    for (const upstream of gone) this.retire(upstream);
  }

  #isWanted({ start: { service, instance } }: Upstream): boolean {
    if (this.#snapshot === undefined) return true;
    const current = this.#snapshot.services.get(service)?.instances.find(({ id }) => id === instance.id);
    return current !== undefined && !current.draining && isSame(current, instance);
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
    for (const [key, list] of this.#idle) this.#keep(key, list, ({ until }) => until > now);
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

function keyOf(service: ServiceName, instance: Instance, share: string): string {
  return `${service} ${instance.id} ${share}`;
}

function idleTime(keptFor: number | undefined): number {
  return keptFor === undefined ? IDLE_MS : Math.min(keptFor * 1000 - IDLE_MARGIN_MS, MAX_IDLE_MS);
}

/** Still the same place, also where the catalogue has another value for it by now. */
function isSame(a: Instance, b: Instance): boolean {
  if (a === b) return true;
  return a.address.ip === b.address.ip && a.address.port === b.address.port && a.node === b.node;
}
