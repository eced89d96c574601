import type { RequestHead } from '../http1/request-head.ts';
import { type Endpoint, endpointKey, type OriginalDestination } from '../model/address.ts';
import type { RequestEndReason } from '../model/request.ts';
import type { Instance, InstanceId, Service, ServiceName } from '../model/service.ts';
import type { OutboundRoute } from '../proxy/outbound-dependencies.ts';
import type { SearchTarget } from '../proxy/seeker.ts';

/** Where a request goes. */
export interface Aim {
  readonly kind: 'aim';
  readonly target: SearchTarget;
  /** It is no service, but where an address or a name leads that no service has ({@link outsideAim}). */
  readonly outside: boolean;
}

/** A request that goes nowhere: what its caller is answered. */
export interface Refused {
  readonly kind: 'refused';
  readonly status: number;
  readonly reason: RequestEndReason;
  readonly detail: string;
}

/** Says for each request of one connection where it goes. */
export interface RequestTargets {
  /** Later, where a name has to be asked for first; never rejects. */
  of(head: RequestHead): Aim | Refused | Promise<Aim | Refused>;
  /** What the connection was made to is something else by now: its caller is to connect anew. */
  readonly outdated: boolean;
  /** CONNECT is taken. */
  readonly tunnels: boolean;
}

export function aimAt(target: SearchTarget): Aim {
  return { kind: 'aim', target, outside: false };
}

export function refused(status: number, reason: RequestEndReason, detail: string): Refused {
  return { kind: 'refused', status, reason, detail };
}

/** Most addresses of one place outside of the mesh that are tried. */
const MAX_OUTSIDE = 8;

/**
 * A place outside of the mesh, as a service of its own: each address is an instance of it, so that one that does not answer
 * is followed by the next. `authority` is its name; no service has one with a port.
 */
export function outsideAim(authority: string, addresses: readonly Endpoint[]): Aim {
  const service: Service = {
    ...{ name: authority as ServiceName, protocol: 'http', mode: 'permissive', interchangeable: false },
    ...{ balance: 'round-robin', hosts: [], addresses: [] },
    instances: addresses.slice(0, MAX_OUTSIDE).map(
      (address): Instance => ({
        id: endpointKey(address) as string as InstanceId,
        ...{ address, zone: '', labels: {}, weight: 1, draining: false },
      }),
    ),
  };
  return { kind: 'aim', target: { service, instance: undefined }, outside: true };
}

/** A connection to one service, or to one instance of it: all its requests go there. */
export class OneTarget implements RequestTargets {
  outdated = false;
  readonly tunnels = false;
  readonly #current: (target: SearchTarget) => SearchTarget | undefined;
  #aim: Aim;

  /** `current`: the same target as the newest catalogue has it; undefined when that would take its connections elsewhere. */
  constructor(target: SearchTarget, current: (target: SearchTarget) => SearchTarget | undefined) {
    this.#aim = aimAt(target);
    this.#current = current;
  }

  of(): Aim {
    const { target } = this.#aim;
    const now = this.#current(target);
    if (now === undefined) this.outdated = true;
    else if (now !== target) this.#aim = aimAt(now);
    return this.#aim;
  }
}

export interface SharedDependencies {
  /** What an address means now. */
  route(destination: OriginalDestination): OutboundRoute;
  /** The one of these services that has this name. */
  named(services: readonly Service[], host: string): Service | undefined;
}

/**
 * A connection to an address that several services share. Each request goes to the one that its Host names; what none of
 * them has goes on to the address itself, unless one of them is strict.
 */
export class SharedTarget implements RequestTargets {
  outdated = false;
  readonly tunnels = false;
  readonly #destination: OriginalDestination;
  readonly #deps: SharedDependencies;

  constructor(destination: OriginalDestination, dependencies: SharedDependencies) {
    this.#destination = destination;
    this.#deps = dependencies;
  }

  of(head: RequestHead): Aim | Refused {
    const route = this.#deps.route(this.#destination);
    switch (route.kind) {
      case 'shared': {
        const service = this.#deps.named(route.services, hostOf(head.authority).host);
        if (service !== undefined) return aimAt({ service, instance: undefined });
        return route.strict
          ? refused(503, 'configuration', 'services share the address, one is strict, and none has this name')
          : this.#onward();
      }
      case 'service':
        return this.#alone(route.service, undefined);
      case 'instance':
        return this.#alone(route.service, route.instance);
      case 'passthrough':
        this.outdated = true;
        return this.#onward();
      case 'refuse':
        this.outdated = true;
        return refused(503, route.reason, 'the address means nobody any more');
    }
  }

  #alone(service: Service, instance: Instance | undefined): Aim {
    this.outdated ||= service.protocol !== 'http';
    return aimAt({ service, instance });
  }

  #onward(): Aim {
    return outsideAim(endpointKey(this.#destination), [this.#destination]);
  }
}

/** Host and port of an authority that the codec has found valid; without the brackets of an IPv6 address. */
export function hostOf(authority: string): { readonly host: string; readonly port: number | undefined } {
  const bracket = authority.lastIndexOf(']');
  const colon = authority.lastIndexOf(':');
  const port = colon > bracket ? Number(authority.slice(colon + 1)) : undefined;
  const host = port === undefined ? authority : authority.slice(0, colon);
  return { host: bracket < 0 ? host : host.slice(1, -1), port };
}
