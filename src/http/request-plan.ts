import type { Fault, ServicePolicy, StickyKey, Timeouts } from '../model/policy.ts';
import { type RequestView, stickyText } from '../policy/match/request-view.ts';
import type { Choice } from '../proxy/outbound-dependencies.ts';
import { type RequestRoute, type RequestRoutes, requestRoutes } from '../route/request-routes.ts';
import { RetryRule } from './retry-rule.ts';

/** What is decided about a request before it is sent. It stays so, whatever becomes of the policy meanwhile. */
export interface RequestPlan {
  /** Name of the route that it takes; undefined: none. */
  readonly route: string | undefined;
  /** Among which instances is chosen, and by what; undefined: among all. */
  readonly choice: Choice | undefined;
  /** Path and query that are sent on in the place of the caller's. */
  readonly path: string | undefined;
  /** Sent on as Host. */
  readonly host: string | undefined;
  readonly redirect: RequestRoute['redirect'];
  /** Milliseconds that it is held back, for tests; 0: not at all. */
  readonly delay: number;
  /** Status that it is answered with in the place of an instance, for tests. */
  readonly abort: number | undefined;
  readonly timeouts: Timeouts;
  /** Undefined: what is done without a policy. */
  readonly retries: RetryRule | undefined;
}

/** Of requests to services of which nobody has said anything. */
export const NO_PLAN: RequestPlan = Object.freeze({
  ...{ route: undefined, choice: undefined, path: undefined, host: undefined, redirect: undefined },
  ...{ delay: 0, abort: undefined, timeouts: Object.freeze({}), retries: undefined },
});

/** Makes the plans for requests to one service. Compiled once for each policy. */
export class RequestPlanner {
  /** Requests are counted, or bounded, beside what their plans say. */
  readonly counts: boolean;
  readonly #routes: RequestRoutes | undefined;
  readonly #hash: StickyKey | undefined;
  readonly #plain: RequestPlan;

  private constructor(policy: ServicePolicy) {
    const { routes, timeouts, retries, balance, circuitBreaker, rateLimits } = policy;
    this.#routes = requestRoutes(policy);
    this.#hash = balance?.hash;
    this.#plain =
      timeouts === undefined && retries === undefined
        ? NO_PLAN
        : {
            ...NO_PLAN,
            timeouts: timeouts ?? NO_PLAN.timeouts,
            retries: retries && RetryRule.of(retries),
          };
    const someRetry = retries !== undefined || routes?.some((route) => route.retries !== undefined) === true;
    this.counts = someRetry || circuitBreaker !== undefined || rateLimits !== undefined;
  }

  static of(policy: ServicePolicy): RequestPlanner {
    let planner = planners.get(policy);
    if (planner === undefined) {
      planner = new RequestPlanner(policy);
      planners.set(policy, planner);
    }
    return planner;
  }

  /** Nothing depends on what a request says. */
  get isPlain(): boolean {
    return this.#routes === undefined && this.#hash === undefined;
  }

  /** What there is to plan without a look at the request; only where `isPlain`. */
  get plain(): RequestPlan {
    return this.#plain;
  }

  /** `random`: uniform in [0, 1). */
  plan(view: RequestView, random: () => number): RequestPlan {
    const route = this.#routes?.decide(view, random);
    const key = this.#hash === undefined ? undefined : stickyText(this.#hash, view);
    if (route === undefined && key === undefined) return this.#plain;
    const plain = this.#plain;
    if (route === undefined) return { ...plain, choice: choiceOf(undefined, key) };
    const { name, subset, path, host, redirect, fault, timeouts, retries } = route;
    return {
      route: name,
      choice: choiceOf(subset, key),
      ...{ path, host, redirect },
      ...dice(fault, random),
      timeouts: timeouts ?? plain.timeouts,
      retries: retries === undefined ? plain.retries : RetryRule.of(retries),
    };
  }
}

const planners = new WeakMap<ServicePolicy, RequestPlanner>();

function choiceOf(subset: Choice['subset'], key: string | undefined): Choice | undefined {
  if (subset === undefined && key === undefined) return undefined;
  return { ...(subset === undefined ? {} : { subset }), ...(key === undefined ? {} : { key }) };
}

/** Whether this request is one of those that a fault is for. */
function dice(fault: Fault | undefined, random: () => number): Pick<RequestPlan, 'delay' | 'abort'> {
  const hits = (part: { readonly percent: number }) => random() * 100 < part.percent;
  const { delay, abort } = fault ?? {};
  return {
    delay: delay !== undefined && hits(delay) ? delay.duration : 0,
    abort: abort !== undefined && hits(abort) ? abort.status : undefined,
  };
}
