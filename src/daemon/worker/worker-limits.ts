import { join } from 'node:path';
import { mapShared } from '../../io/shared-memory.ts';
import { RateLimits } from '../../limit/rate-limits.ts';
import { ServiceLimits } from '../../limit/service-limits.ts';
import { SHARED_BYTES, SharedBuckets } from '../../limit/shared-buckets.ts';
import { parseEndpoint } from '../../model/address.ts';
import { reasonOf } from '../../model/errors.ts';
import type { ServicePolicy } from '../../model/policy.ts';
import type { ServiceName } from '../../model/service.ts';
import type { ConnectionEntry } from '../../proxy/connections.ts';
import type { Log } from '../../telemetry/log.ts';
import type { WorkerSettings } from '../control/messages.ts';
import type { WorkerEvent } from '../events.ts';
import { workerCount } from '../host.ts';
import type { WorkerMetrics } from './worker-metrics.ts';

/** Name of the file in `daemon.runtimeDirectory` that holds the rate limits of all workers. */
const RATES_FILE = 'rates';

interface WorkerLimitsOptions {
  readonly log: Log;
  readonly metrics: WorkerMetrics;
  settings(): WorkerSettings;
  policy(service: ServiceName): ServicePolicy;
  onEvent(event: WorkerEvent): void;
}

/** What this worker holds against services by policy: bounds, budgets, and the rates that it shares with the others. */
export class WorkerLimits {
  readonly services: ServiceLimits;
  readonly rates: RateLimits;
  readonly #policy: WorkerLimitsOptions['policy'];
  #buckets: SharedBuckets | undefined;
  #mapped = false;

  constructor(options: WorkerLimitsOptions) {
    const { log, metrics, settings, policy, onEvent } = options;
    this.#policy = policy;
    this.services = new ServiceLimits({
      policy,
      workers: () => workerCount(settings().config),
      now: () => performance.now(),
      onTransition: (transition) => {
        const { service, resource, from, to } = transition;
        metrics.breaker(transition);
        log.warn({ service, resource, from, to }, `circuit breaker: ${from} → ${to}`);
        onEvent({ kind: 'circuit-breaker', service, text: `${resource}: ${from} → ${to}` });
      },
      onRefused: (service, resource) => metrics.breakerRefused(service, resource),
    });
    this.rates = new RateLimits({
      buckets: () => this.#shared(options),
      now: () => process.hrtime.bigint(),
      onRefused: (service, limit) => metrics.rateLimited(service, limit),
    });
  }

  /** The rate limit that an opaque connection is over, by name; undefined: none. */
  overRate({ service, start, callerProgram }: ConnectionEntry): string | undefined {
    if (service === undefined) return undefined;
    const policy = this.#policy(service);
    if (policy.rateLimits === undefined) return undefined;
    const { callerService, callerNode, callerAddress } = start;
    const caller = {
      ...{ service: callerService, node: callerNode, program: callerProgram },
      address: parseEndpoint(callerAddress)?.ip,
    };
    return this.rates.admit(service, policy, caller, undefined)?.limit;
  }

  /** Mapped with the first limit that is asked for: most hosts have none. */
  #shared({ log, settings, onEvent }: WorkerLimitsOptions): SharedBuckets | undefined {
    if (this.#mapped) return this.#buckets;
    this.#mapped = true;
    const path = join(settings().config.daemon.runtimeDirectory, RATES_FILE);
    try {
      this.#buckets = new SharedBuckets(mapShared(path, SHARED_BYTES));
    } catch (error) {
      // A worker that counts for itself alone refuses too late, and still better than never.
      this.#buckets = new SharedBuckets(new ArrayBuffer(SHARED_BYTES));
      log.error({ error }, 'rate limits: this worker counts for itself alone');
      onEvent({ kind: 'rate-limit', text: `a worker counts for itself alone: ${reasonOf(error)}` });
    }
    return this.#buckets;
  }
}
