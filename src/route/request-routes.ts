import type {
  Fault,
  Redirect,
  RequestMatch,
  Retries,
  Rewrite,
  Route,
  ServicePolicy,
  StickyKey,
  Subset,
  Timeouts,
} from '../model/policy.ts';
import { pathPrefix } from '../policy/match/path-matcher.ts';
import { compileRequest, type RequestMatcher } from '../policy/match/request.ts';
import { type RequestView, stickyText } from '../policy/match/request-view.ts';
import { stableShare } from '../policy/match/stable-share.ts';
import { rewrittenPath } from './rewrite.ts';
import { WeightedSplit } from './weighted-split.ts';

/** What a route says of one request. */
export interface RequestRoute {
  /** Of the route. */
  readonly name: string;
  /** Only instances with these labels; absent: all of the service. */
  readonly subset?: Subset;
  /** Path and query that are sent on in the place of the caller's. */
  readonly path?: string;
  /** Sent on as Host. */
  readonly host?: string;
  /** The caller is sent there instead. */
  readonly redirect?: { readonly status: Redirect['status']; readonly location: string };
  readonly fault?: Fault;
  /** In the place of the service's own section. */
  readonly timeouts?: Timeouts;
  readonly retries?: Retries;
}

interface CompiledMatch {
  readonly matches: RequestMatcher;
  /** What its path's prefix matched, which a rewrite replaces; absent: it replaces the whole path. */
  readonly prefix: string | undefined;
}

/** The routes of one service, compiled. */
export class RequestRoutes {
  readonly #routes: readonly CompiledRoute[];

  constructor(routes: readonly Route[]) {
    this.#routes = routes.map((route) => new CompiledRoute(route));
  }

  /**
   * The first route that means this request and whose share it falls into; undefined: none does, and the request goes on
   * as it does without routes. `random`: uniform in [0, 1).
   */
  decide(view: RequestView, random: () => number): RequestRoute | undefined {
    for (const route of this.#routes) {
      const decided = route.decide(view, random);
      if (decided !== undefined) return decided;
    }
    return undefined;
  }
}

const compiled = new WeakMap<ServicePolicy, RequestRoutes>();

/** The routes of a service; undefined where it has none. Compiled once for each policy. */
export function requestRoutes(policy: ServicePolicy): RequestRoutes | undefined {
  const { routes } = policy;
  if (routes === undefined || routes.length === 0) return undefined;
  const known = compiled.get(policy);
  if (known !== undefined) return known;
  const fresh = new RequestRoutes(routes);
  compiled.set(policy, fresh);
  return fresh;
}

class CompiledRoute {
  readonly #name: string;
  readonly #matches: readonly CompiledMatch[];
  /** Of 1. */
  readonly #share: number;
  readonly #sticky: StickyKey | undefined;
  readonly #split: WeightedSplit<RequestRoute>;
  readonly #rewrite: Rewrite | undefined;
  readonly #redirect: Redirect | undefined;

  constructor(route: Route) {
    const { name, matches, percent, sticky, to, rewrite, redirect, fault, timeouts, retries } = route;
    this.#name = name;
    this.#matches =
      matches.length === 0 ? [{ matches: () => true, prefix: undefined }] : matches.map(compile);
    this.#share = percent / 100;
    this.#sticky = sticky;
    this.#rewrite = rewrite;
    this.#redirect = redirect;
    const common: RequestRoute = {
      name,
      ...(rewrite?.host === undefined ? {} : { host: rewrite.host }),
      ...(fault === undefined ? {} : { fault }),
      ...(timeouts === undefined ? {} : { timeouts }),
      ...(retries === undefined ? {} : { retries }),
    };
    const sides = (to ?? []).map(({ subset, weight }) => ({
      key: subsetText(subset),
      weight,
      value: Object.freeze(Object.keys(subset).length === 0 ? common : { ...common, subset }),
    }));
    this.#split = new WeightedSplit(`split ${name}`, sides, Object.freeze(common));
  }

  decide(view: RequestView, random: () => number): RequestRoute | undefined {
    const match = this.#matches.find(({ matches }) => matches(view));
    if (match === undefined || this.#share <= 0) return undefined;
    const partial = this.#share < 1;
    if (!partial && this.#split.single) return this.#changed(this.#split.at(undefined, random), view, match);
    const key = this.#sticky === undefined ? undefined : stickyText(this.#sticky, view);
    if (partial) {
      const position = key === undefined ? random() : stableShare(`percent ${this.#name}`, key);
      if (position >= this.#share) return undefined;
    }
    return this.#changed(this.#split.at(key, random), view, match);
  }

  /** With what depends on the request itself. */
  #changed(route: RequestRoute, view: RequestView, { prefix }: CompiledMatch): RequestRoute {
    const path = this.#rewrite?.path;
    const changed = path === undefined ? route : { ...route, path: rewrittenPath(view, prefix, path) };
    if (this.#redirect === undefined) return changed;
    const { status } = this.#redirect;
    return { ...changed, redirect: { status, location: locationOf(this.#redirect, view, prefix) } };
  }
}

function compile(match: RequestMatch): CompiledMatch {
  const { path } = match;
  return {
    matches: compileRequest(match),
    prefix: path?.kind === 'prefix' ? pathPrefix(path.value) : undefined,
  };
}

/** Where a redirected caller is sent: relative where neither scheme nor host is named (RFC 9110, 10.2.2). */
function locationOf({ scheme, host, path }: Redirect, view: RequestView, prefix: string | undefined): string {
  const query = view.query === '' ? '' : `?${view.query}`;
  const target = path === undefined ? view.rawPath + query : rewrittenPath(view, prefix, path);
  const authority = host ?? view.authority;
  if ((scheme === undefined && host === undefined) || authority === '') return target;
  return `${scheme ?? 'http'}://${authority}${target}`;
}

/** The same for equal subsets, in whatever order their labels stand. */
function subsetText(subset: Subset): string {
  return JSON.stringify(Object.entries(subset).sort(([a], [b]) => (a < b ? -1 : 1)));
}
