import type { Retries, ServicePolicy } from '../model/policy.ts';
import type { ServiceName } from '../model/service.ts';
import type { CallerView, RequestView } from '../policy/match/request-view.ts';

/** Bounds on the requests to one service and their retries; what was taken is given back to the same. */
interface RequestBreaker {
  tryAcquire(resource: 'requests' | 'retries'): boolean;
  release(resource: 'requests' | 'retries'): void;
}

/** What a worker holds against services, as far as requests are concerned. */
export interface RequestLimits {
  readonly rates: {
    admit(
      service: ServiceName,
      policy: ServicePolicy,
      caller: CallerView,
      view: RequestView,
    ): { readonly limit: string; readonly retryAfterMs: number } | undefined;
  };
  readonly services: {
    /** Undefined for a service without bounds. */
    breaker(service: ServiceName): RequestBreaker | undefined;
    /** A request that may be asked again has begun. */
    request(service: ServiceName): void;
    /** Takes a retry from the budget; false when there is none left. */
    tryRetry(service: ServiceName, budget: Retries['budget']): boolean;
  };
}

/** A request that is held back, and why; `retryAfterMs`: when it would not be, perhaps. */
export interface Held {
  readonly kind: 'held';
  readonly by: 'rate-limit' | 'overload';
  readonly detail: string;
  readonly retryAfterMs: number | undefined;
}

/** A request that was let in: what it holds of the bounds of its service, until its end. */
export class Admission {
  readonly kind = 'admitted';
  readonly #services: RequestLimits['services'];
  readonly #service: ServiceName;
  readonly #breaker: RequestBreaker | undefined;
  /** Retries at once are as many as requests that are being retried: one is over before the next begins. */
  #retrying = false;
  #over = false;

  private constructor(
    services: RequestLimits['services'],
    service: ServiceName,
    breaker: RequestBreaker | undefined,
  ) {
    this.#services = services;
    this.#service = service;
    this.#breaker = breaker;
  }

  /** Lets a request in, or not. The first bound that refuses counts. */
  static ask(
    { rates, services }: RequestLimits,
    service: ServiceName,
    policy: ServicePolicy,
    view: RequestView,
  ): Admission | Held {
    const rate = rates.admit(service, policy, view.caller, view);
    if (rate !== undefined) {
      const { limit, retryAfterMs } = rate;
      return { kind: 'held', by: 'rate-limit', detail: `rate limit: ${limit}`, retryAfterMs };
    }
    const breaker = services.breaker(service);
    if (breaker?.tryAcquire('requests') === false) {
      return { kind: 'held', by: 'overload', detail: 'circuit breaker: requests', retryAfterMs: undefined };
    }
    services.request(service);
    return new Admission(services, service, breaker);
  }

  /** Takes one retry from the budget; false when there is none left. */
  tryRetry({ budget }: Retries): boolean {
    const breaker = this.#retrying ? undefined : this.#breaker;
    if (breaker?.tryAcquire('retries') === false) return false;
    if (this.#services.tryRetry(this.#service, budget)) {
      this.#retrying = true;
      return true;
    }
    breaker?.release('retries');
    return false;
  }

  /** The request is over. */
  over(): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#retrying) this.#breaker?.release('retries');
    this.#breaker?.release('requests');
  }
}
