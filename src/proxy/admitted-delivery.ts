import type { AccessControl } from '../access/access-control.ts';
import type { AccessRequest } from '../access/rules.ts';
import type { Channel } from '../io/channel.ts';
import { MeshError } from '../model/errors.ts';
import type { Instance, Service, ServiceName } from '../model/service.ts';
import type { CallerView } from '../policy/match/request-view.ts';
import type { Delivery } from './delivery.ts';
import type { KnownCaller } from './proxy-v2.ts';

/** Who calls, and as what. */
export interface DeliveredCaller extends KnownCaller {
  /** The service that it speaks for, as far as its host may. */
  readonly service: ServiceName | undefined;
}

/** Told what becomes of what is delivered, for its journal. */
export interface DeliveryJournal {
  /** Requests are decided about one by one. */
  judged?(): void;
  /** It was denied, or would have been. */
  noted?(what: string): void;
  /** From now on nobody reads it any more, as this request asked for. */
  switched?(request: AccessRequest): void;
}

/** Puts somebody before the channel to an instance who asks about each request ({@link RequestGuard}). */
export type Guard = (
  channel: Channel,
  service: ServiceName,
  owner: {
    denial(request: AccessRequest): string | undefined;
    switched(request: AccessRequest): void;
  },
) => Channel;

/** The last leg to an instance of this host, for those whom its access rules let through. */
export class AdmittedDelivery {
  readonly #delivery: Delivery;
  readonly #access: AccessControl;
  readonly #guard: Guard;

  constructor(delivery: Delivery, access: AccessControl, guard: Guard) {
    this.#delivery = delivery;
    this.#access = access;
    this.#guard = guard;
  }

  /**
   * The way to the instance, or a `denied` MeshError. `request`: the only one that the channel is for now; without it a
   * channel to a service whose rules speak of requests has somebody before it who reads them.
   */
  here(
    service: Service,
    instance: Instance,
    caller: DeliveredCaller,
    journal: DeliveryJournal = {},
    request?: AccessRequest,
  ): Channel | MeshError {
    const view = callerViewOf(caller);
    const { port } = instance.address;
    const verdict =
      request === undefined
        ? this.#access.connection(service, port, view)
        : this.#access.request(service.name, port, view, request);
    if (verdict === undefined) return this.#delivery.here(service, instance, caller);
    if (verdict === 'requests') return this.#guarded(service, instance, caller, view, journal);
    if (verdict.denial !== undefined) journal.noted?.(`${verdict.action}: ${verdict.denial}`);
    if (verdict.action === 'deny') return new MeshError('denied', 'callee', verdict.denial ?? '');
    return this.#delivery.here(service, instance, caller);
  }

  /** Whether a channel that is open already may carry this request. */
  mayReuse(
    service: Service,
    instance: Instance,
    caller: DeliveredCaller,
    journal: DeliveryJournal,
    request: AccessRequest,
  ): boolean {
    const { port } = instance.address;
    const verdict = this.#access.previewRequest(service.name, port, callerViewOf(caller), request);
    if (verdict?.action === 'deny') return false;
    if (verdict === undefined) return true;
    this.#access.count(service.name, verdict);
    if (verdict.denial !== undefined) journal.noted?.(`${verdict.action}: ${verdict.denial}`);
    return true;
  }

  #guarded(
    service: Service,
    instance: Instance,
    caller: DeliveredCaller,
    view: CallerView,
    journal: DeliveryJournal,
  ): Channel {
    const { port } = instance.address;
    journal.judged?.();
    return this.#guard(this.#delivery.here(service, instance, caller), service.name, {
      denial: (request) => {
        const verdict = this.#access.request(service.name, port, view, request);
        if (verdict?.denial !== undefined) journal.noted?.(`${verdict.action}: ${verdict.denial}`);
        return verdict?.action === 'deny' ? verdict.denial : undefined;
      },
      switched: (request) => journal.switched?.(request),
    });
  }
}

function callerViewOf({ service, program, node, address }: DeliveredCaller): CallerView {
  return { service, program, node, address: address?.ip };
}
