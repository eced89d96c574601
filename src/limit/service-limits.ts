import type { Retries, ServicePolicy } from '../model/policy.ts';
import type { ServiceName } from '../model/service.ts';
import { type BreakerResource, type BreakerState, CircuitBreaker } from './circuit-breaker.ts';
import { RetryBudget } from './retry-budget.ts';

/** A breaker changed. */
export interface BreakerTransition {
  readonly service: ServiceName;
  readonly resource: BreakerResource;
  readonly from: BreakerState;
  readonly to: BreakerState;
}

interface ServiceLimitsOptions {
  policy(service: ServiceName): ServicePolicy;
  /** Workers of this host, which share what a host may do. */
  workers(): number;
  /** Milliseconds of a clock that never goes back. */
  now(): number;
  onTransition(transition: BreakerTransition): void;
  onRefused(service: ServiceName, resource: BreakerResource): void;
}

/** What one worker holds against services: circuit breakers and retry budgets. Only services with a policy have any. */
export class ServiceLimits {
  readonly #options: ServiceLimitsOptions;
  readonly #breakers = new Map<ServiceName, CircuitBreaker>();
  readonly #budgets = new Map<ServiceName, RetryBudget>();

  constructor(options: ServiceLimitsOptions) {
    this.#options = options;
  }

  /**
   * The breaker of a service; undefined when its policy names none. Whoever took something gives it back to the same
   * breaker, whatever the policy says by then.
   */
  breaker(service: ServiceName): CircuitBreaker | undefined {
    if (this.#options.policy(service).circuitBreaker === undefined) return undefined;
    let breaker = this.#breakers.get(service);
    if (breaker === undefined) {
      const { policy, workers, now, onTransition, onRefused } = this.#options;
      breaker = new CircuitBreaker({
        bounds: () => policy(service).circuitBreaker,
        workers,
        now,
        onTransition: (resource, from, to) => onTransition({ service, resource, from, to }),
        onRefused: (resource) => onRefused(service, resource),
      });
      this.#breakers.set(service, breaker);
    }
    return breaker;
  }

  /** A request that may be asked again has begun. */
  request(service: ServiceName): void {
    let budget = this.#budgets.get(service);
    if (budget === undefined) {
      budget = new RetryBudget();
      this.#budgets.set(service, budget);
    }
    budget.request(this.#options.now());
  }

  /** Takes a retry from the budget of a service; false when there is none left. */
  tryRetry(service: ServiceName, budget: Retries['budget']): boolean {
    const { now, workers } = this.#options;
    return this.#budgets.get(service)?.tryRetry(now(), budget, workers()) ?? false;
  }

  /** Breakers that are at their bound, or hold anything; for people. */
  *breakers(): Iterable<readonly [ServiceName, CircuitBreaker]> {
    for (const entry of this.#breakers) if (!entry[1].idle) yield entry;
  }

  /** Now and then: closes what is calm again, and forgets services that `isKnown` does not know. */
  sweep(isKnown: (service: ServiceName) => boolean): void {
    for (const [service, breaker] of this.#breakers) {
      breaker.calm();
      if (breaker.idle && !isKnown(service)) this.#breakers.delete(service);
    }
    for (const service of this.#budgets.keys()) if (!isKnown(service)) this.#budgets.delete(service);
  }
}
