import type { RequestHead } from '../http1/request-head.ts';
import { type Endpoint, endpointKey, type Ip } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';
import type { Instance, Service } from '../model/service.ts';
import {
  type Aim,
  aimAt,
  hostOf,
  outsideAim,
  type Refused,
  type RequestTargets,
  refused,
} from './targets.ts';

/** What a name or an address means that a caller wrote; what route/ answers, seen from here. */
export type NamedRoute =
  | { readonly kind: 'service'; readonly service: Service }
  | { readonly kind: 'instance'; readonly service: Service; readonly instance: Instance }
  | { readonly kind: 'address'; readonly endpoint: Endpoint }
  | { readonly kind: 'unknown'; readonly host: string }
  | {
      readonly kind: 'refuse';
      readonly reason: 'loop' | 'configuration' | 'refused' | 'no-service';
      readonly detail: string;
    };

/** What the explicit proxy needs to know of where its callers would like to go. */
export interface ExplicitDependencies {
  /** `usual`: the port of an address without one. */
  find(host: string, port: number | undefined, usual: number): NamedRoute;
  /** By the ordinary DNS of this host. Rejects with a MeshError that says why there is no answer. */
  resolve(host: string): Promise<readonly Ip[]>;
  /** Why the agent carries nobody to this address that no service claims; `local`: for a caller of this host. */
  forbidden(endpoint: Endpoint, local: boolean): string | undefined;
}

const HTTP_PORT = 80;

/** A connection to the explicit proxy: each request says itself where it goes. */
export class ExplicitTargets implements RequestTargets {
  readonly outdated = false;
  readonly tunnels = true;
  readonly #local: boolean;
  readonly #deps: ExplicitDependencies;

  /** `local`: the caller is on this host, and in its network namespace. */
  constructor(local: boolean, dependencies: ExplicitDependencies) {
    this.#local = local;
    this.#deps = dependencies;
  }

  of(head: RequestHead): Aim | Refused | Promise<Aim | Refused> {
    const { form, scheme, authority } = head;
    if (scheme === 'https') {
      return refused(400, 'target-invalid', 'https goes through CONNECT: this proxy does not encrypt');
    }
    const { host, port } = hostOf(authority);
    const route = this.#deps.find(host, port, HTTP_PORT);
    if (route.kind === 'service') return aimAt({ service: route.service, instance: undefined });
    if (route.kind === 'instance') return aimAt({ service: route.service, instance: route.instance });
    // A client that does not know of a proxy means the one that it called.
    if (form === 'origin' || form === 'asterisk') {
      const said = 'a proxy takes requests with a whole URL or CONNECT, or with a service as their Host';
      return refused(400, 'target-invalid', said);
    }
    if (route.kind === 'refuse') return refused(statusOf(route.reason), route.reason, route.detail);
    return route.kind === 'address'
      ? this.#outside(endpointKey(route.endpoint), [route.endpoint])
      : this.#resolved(route.host, port ?? HTTP_PORT);
  }

  /** What a name that no service has leads to: it may be an address that a service claims. */
  async #resolved(host: string, port: number): Promise<Aim | Refused> {
    let addresses: readonly Ip[];
    try {
      addresses = await this.#deps.resolve(host);
    } catch (error) {
      const known = error instanceof MeshError ? error.code : 'no-service';
      return refused(statusOf(known), known, error instanceof Error ? error.message : 'no answer');
    }
    const open: Endpoint[] = [];
    let refusal = refused(503, 'no-service', `${host} has no address`);
    for (const ip of addresses) {
      const route = this.#deps.find(ip, port, port);
      if (route.kind === 'service') return aimAt({ service: route.service, instance: undefined });
      if (route.kind === 'instance') return aimAt({ service: route.service, instance: route.instance });
      if (route.kind === 'address') open.push(route.endpoint);
      else if (route.kind === 'refuse') {
        refusal = refused(statusOf(route.reason), route.reason, `${host}: ${route.detail}`);
      }
    }
    return open.length === 0 ? refusal : this.#outside(`${host}:${port}`, open);
  }

  #outside(authority: string, endpoints: readonly Endpoint[]): Aim | Refused {
    const forbidden = new Map(
      endpoints.map((endpoint) => [endpoint, this.#deps.forbidden(endpoint, this.#local)]),
    );
    const open = endpoints.filter((endpoint) => forbidden.get(endpoint) === undefined);
    if (open.length > 0) return outsideAim(authority, open);
    return refused(403, 'denied', `${authority}: ${forbidden.get(endpoints[0]!)}`);
  }
}

function statusOf(reason: string): number {
  if (reason === 'loop') return 508;
  return reason === 'timeout' ? 504 : 503;
}
