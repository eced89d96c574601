import type { CircuitBreaker as Bounds } from '../model/policy.ts';

/** What is bounded. */
export const breakerResources = ['connections', 'pending', 'requests', 'retries'] as const;
export type BreakerResource = (typeof breakerResources)[number];

/** `closed`: all is let through. `open`: some was refused, and not long ago. */
export type BreakerState = 'closed' | 'open';

/** It closes with the first that is let through after so long without a refusal: a service at its bound is no flicker. */
export const CALM_MS = 1000;

const NEXT: Readonly<Record<BreakerState, BreakerState>> = { closed: 'open', open: 'closed' };

interface BreakerOptions {
  /** As they are now; a bound that is absent is none. */
  bounds(): Bounds | undefined;
  /** Workers that share each bound. */
  workers(): number;
  /** Milliseconds of a clock that never goes back. */
  now(): number;
  onTransition(resource: BreakerResource, from: BreakerState, to: BreakerState): void;
  onRefused(resource: BreakerResource): void;
}

/** One bound: how many there are, and whether it refuses. */
class Bound {
  active = 0;
  state: BreakerState = 'closed';
  refusedAt = 0;
}

/**
 * The bounds of one worker's calls to one service: connections, searches for an instance, requests, retries. More than that
 * is refused at once, so that a service which is slow does not collect everything that its callers have.
 */
export class CircuitBreaker {
  readonly #bounds: Readonly<Record<BreakerResource, Bound>> = {
    connections: new Bound(),
    pending: new Bound(),
    requests: new Bound(),
    retries: new Bound(),
  };
  readonly #options: BreakerOptions;

  constructor(options: BreakerOptions) {
    this.#options = options;
  }

  /** Takes one, to be given back by `release`; false when there are as many as there may be. Every worker may have one, unless nobody may. */
  tryAcquire(resource: BreakerResource): boolean {
    const { bounds, workers, now, onRefused } = this.#options;
    const bound = this.#bounds[resource];
    const most = bounds()?.[resource];
    if (most !== undefined && bound.active >= Math.ceil(most / workers())) {
      bound.refusedAt = now();
      onRefused(resource);
      if (bound.state === 'closed') this.#enter(resource, bound, 'open');
      return false;
    }
    bound.active++;
    if (bound.state === 'open') this.#calm(resource, bound);
    return true;
  }

  /** Gives one back. */
  release(resource: BreakerResource): void {
    const bound = this.#bounds[resource];
    if (bound.active === 0) throw new RangeError(`circuit breaker: no ${resource} to give back`);
    bound.active--;
  }

  /** Closes what has refused nothing for a while: a service that nobody calls any more is not at its bound. */
  calm(): void {
    for (const resource of breakerResources) {
      const bound = this.#bounds[resource];
      if (bound.state === 'open') this.#calm(resource, bound);
    }
  }

  active(resource: BreakerResource): number {
    return this.#bounds[resource].active;
  }

  state(resource: BreakerResource): BreakerState {
    return this.#bounds[resource].state;
  }

  /** Nothing is held and nothing refuses: it can be forgotten. */
  get idle(): boolean {
    return breakerResources.every((resource) => {
      const { active, state } = this.#bounds[resource];
      return active === 0 && state === 'closed';
    });
  }

  #calm(resource: BreakerResource, bound: Bound): void {
    if (this.#options.now() - bound.refusedAt >= CALM_MS) this.#enter(resource, bound, 'closed');
  }

  #enter(resource: BreakerResource, bound: Bound, to: BreakerState): void {
    const from = bound.state;
    if (NEXT[from] !== to) throw new RangeError(`circuit breaker cannot go from ${from} to ${to}`);
    bound.state = to;
    this.#options.onTransition(resource, from, to);
  }
}
