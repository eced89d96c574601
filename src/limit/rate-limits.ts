import type { RateLimit, ServicePolicy } from '../model/policy.ts';
import type { ServiceName } from '../model/service.ts';
import { compileRequests, type RequestMatcher } from '../policy/match/request.ts';
import { type CallerView, callerKey, type RequestView, stickyText } from '../policy/match/request-view.ts';
import type { BucketRate, SharedBuckets } from './shared-buckets.ts';

const NANOSECONDS = 1_000_000;

/** One that came too soon. */
export interface RateRefusal {
  /** Name of the limit. */
  readonly limit: string;
  /** After so long there will be room, if nobody else takes it. */
  readonly retryAfterMs: number;
}

interface CompiledLimit {
  readonly name: string;
  readonly rate: BucketRate;
  /** Undefined: it counts connections as well as requests. */
  readonly isMeant: RequestMatcher | undefined;
  /** What is counted together. */
  keyOf(caller: CallerView, view: RequestView | undefined): string | undefined;
}

const compiled = new WeakMap<readonly RateLimit[], readonly CompiledLimit[]>();

interface RateLimitsOptions {
  /** Memory that all workers of the host share; undefined while it cannot be had, and then nothing is limited. */
  buckets(): SharedBuckets | undefined;
  /** Nanoseconds of the host's monotonic clock. */
  now(): bigint;
  onRefused(service: ServiceName, limit: string): void;
}

/** Rate limits by policy, for what this host asks of services: the same sum whichever workers it passes. */
export class RateLimits {
  readonly #options: RateLimitsOptions;

  constructor(options: RateLimitsOptions) {
    this.#options = options;
  }

  /**
   * Takes one from every limit that means this request or, without `view`, this connection; or says which of them has none
   * left. What those before it gave is gone, as in Envoy: giving it back would let a refused flood starve others.
   */
  admit(
    service: ServiceName,
    { rateLimits }: ServicePolicy,
    caller: CallerView,
    view: RequestView | undefined,
  ): RateRefusal | undefined {
    if (rateLimits === undefined) return undefined;
    const buckets = this.#options.buckets();
    if (buckets === undefined) return undefined;
    const now = this.#options.now();
    for (const { name, rate, isMeant, keyOf } of limitsOf(rateLimits)) {
      if (isMeant !== undefined && (view === undefined || !isMeant(view))) continue;
      const key = keyOf(caller, view);
      if (key === undefined) continue;
      const wait = buckets.take(`${service}\n${name}\n${key}`, rate, now);
      if (wait === 0n) continue;
      this.#options.onRefused(service, name);
      return { limit: name, retryAfterMs: Math.ceil(Number(wait) / NANOSECONDS) };
    }
    return undefined;
  }
}

function limitsOf(limits: readonly RateLimit[]): readonly CompiledLimit[] {
  let known = compiled.get(limits);
  if (known === undefined) {
    known = limits.map(compile);
    compiled.set(limits, known);
  }
  return known;
}

function compile({ name, per, count, interval, burst, matches }: RateLimit): CompiledLimit {
  const each = BigInt(Math.max(1, Math.round((interval * NANOSECONDS) / count)));
  return {
    name,
    rate: { each, ahead: each * BigInt(burst - 1) },
    isMeant: matches.length === 0 && per.kind !== 'header' ? undefined : compileRequests(matches),
    keyOf: keyFor(per),
  };
}

function keyFor(per: RateLimit['per']): CompiledLimit['keyOf'] {
  switch (per.kind) {
    case 'service':
      return () => '';
    case 'caller':
      return callerKey;
    case 'header':
      // Requests without the field are counted by no key, and are not limited.
      return (_caller, view) => view && stickyText(per, view);
  }
}
