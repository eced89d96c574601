import type { InstanceId, ServiceName } from '../model/service.ts';
import type { Upstream } from './upstream.ts';

type ByShare = Map<string, Upstream[]>;
type ByInstance = Map<InstanceId, ByShare>;

/**
 * Lists of channels by service, instance and share of callers, looked up twice for each request: three lookups of strings
 * that are known cost a tenth of putting them together as one.
 */
export class UpstreamShelves {
  readonly #services = new Map<ServiceName, ByInstance>();

  /** Where those of this kind stand; undefined when there was none since the last `sort`. */
  get(service: ServiceName, instance: InstanceId, share: string): Upstream[] | undefined {
    return this.#services.get(service)?.get(instance)?.get(share);
  }

  /** Where this one has its place. */
  of({ start: { service, instance, share } }: Upstream): Upstream[] {
    const known = this.get(service, instance.id, share);
    if (known !== undefined) return known;
    const list: Upstream[] = [];
    const instances: ByInstance = this.#services.get(service) ?? new Map();
    const shares: ByShare = instances.get(instance.id) ?? new Map();
    shares.set(share, list);
    instances.set(instance.id, shares);
    this.#services.set(service, instances);
    return list;
  }

  /** Takes those out that do not stay, of the services that are meant, and answers them. Empty lists go, too. */
  sort(isMeant: (service: ServiceName) => boolean, stays: (upstream: Upstream) => boolean): Upstream[] {
    const gone: Upstream[] = [];
    for (const [service, instances] of this.#services) {
      if (!isMeant(service)) continue;
      for (const [instance, shares] of instances) {
        sortShares(shares, stays, gone);
        if (shares.size === 0) instances.delete(instance);
      }
      if (instances.size === 0) this.#services.delete(service);
    }
    return gone;
  }
}

function sortShares(shares: ByShare, stays: (upstream: Upstream) => boolean, gone: Upstream[]): void {
  for (const [share, list] of shares) {
    const kept: Upstream[] = [];
    for (const upstream of list) (stays(upstream) ? kept : gone).push(upstream);
    if (kept.length === 0) shares.delete(share);
    else if (kept.length < list.length) shares.set(share, kept);
  }
}
