import type { AccessAction } from '../../access/rules.ts';
import type { HealthTransition } from '../../balance/health.ts';
import type { BreakerResource } from '../../limit/circuit-breaker.ts';
import type { BreakerTransition } from '../../limit/service-limits.ts';
import type { ConnectionPath } from '../../model/connection.ts';
import type { ErrorCode } from '../../model/errors.ts';
import type { ServiceName } from '../../model/service.ts';
import type { Transport } from '../../naming/answer.ts';
import { responseName } from '../../naming/message.ts';
import type { Detected } from '../../proxy/opening-dependencies.ts';
import type { PickToken } from '../../proxy/outbound-dependencies.ts';
import { ConnectionMetrics } from '../../telemetry/connection-metrics.ts';
import {
  type CounterHandle,
  Counters,
  type HistogramHandle,
  type MetricsDelta,
} from '../../telemetry/counters.ts';
import { metrics } from '../../telemetry/definitions.ts';
import { ProcessMetrics } from '../../telemetry/process-metrics.ts';
import { RedisMetrics } from '../../telemetry/redis-metrics.ts';
import { RequestMetrics } from '../../telemetry/request-metrics.ts';
import type { Vitals } from '../guard/vitals.ts';
import type { TunnelView } from './tunnel-view.ts';

/** Services and paths whose handles are kept; beyond them they are resolved each time. */
const MOST_HANDLES = 10_000;

interface AttemptHandles {
  readonly ok: CounterHandle;
  readonly failed: CounterHandle;
  readonly retries: CounterHandle;
  readonly duration: HistogramHandle;
}

/** What one worker counts. */
export class WorkerMetrics {
  readonly #counters = new Counters();
  readonly connections = new ConnectionMetrics(this.#counters);
  readonly requests = new RequestMetrics(this.#counters);
  readonly redis = new RedisMetrics(this.#counters);
  readonly #overLimit = this.#counters.counter(metrics.connectionsOverLimit);
  readonly #dropped = this.#counters.counter(metrics.accessLogDropped);
  readonly #roundTrip = this.#counters.histogram(metrics.tunnelRoundTrip);
  readonly #rejected = this.#counters.counter(metrics.acceptsRejected);
  readonly #delay: HistogramHandle;
  readonly #process: ProcessMetrics;
  readonly #attempts = new Map<string, AttemptHandles>();

  constructor(name: string) {
    this.#process = new ProcessMetrics(this.#counters, name);
    this.#delay = this.#counters.histogram(metrics.eventLoopDelay, name);
  }

  /** A question for a name was answered. */
  nameAnswered(transport: Transport, code: number): void {
    this.#counters.counter(metrics.nameAnswers, transport, responseName(code)).add();
  }

  /** A tunnel was dialled. */
  dialled(outcome: 'ok' | ErrorCode): void {
    this.#counters.counter(metrics.tunnelDials, outcome).add();
  }

  /** It was found out what a connection speaks, or not. */
  detected(outcome: Detected): void {
    this.#counters.counter(metrics.protocolDetected, outcome).add();
  }

  /** An instance was asked by the agent itself. */
  probed(service: ServiceName, outcome: string): void {
    this.#counters.counter(metrics.probes, service, outcome).add();
  }

  /** Access rules of a service decided about a connection or a request. */
  accessDecided(service: ServiceName, action: AccessAction): void {
    this.#counters.counter(metrics.accessDecisions, service, action).add();
  }

  accessLogDropped(lines: number): void {
    this.#dropped.add(lines);
  }

  acceptRejected(): void {
    this.#rejected.add();
  }

  measured({ delayMs }: Vitals): void {
    this.#delay.observe(delayMs / 1000);
  }

  /** A caller had its share of connections. */
  refusedCaller(caller: string): void {
    this.#counters.counter(metrics.callerOverLimit, caller).add();
  }

  refusedAtLimit(): void {
    this.#overLimit.add();
  }

  /** A bound of a service began to refuse, or does so no more. */
  breaker({ service, resource, to }: BreakerTransition): void {
    this.#counters.gauge(metrics.breakerOpen, service, resource).add(to === 'open' ? 1 : -1);
  }

  breakerRefused(service: ServiceName, resource: BreakerResource): void {
    this.#counters.counter(metrics.breakerRefusals, service, resource).add();
  }

  rateLimited(service: ServiceName, limit: string): void {
    this.#counters.counter(metrics.rateLimited, service, limit).add();
  }

  health({ service, to, from, reason }: HealthTransition): void {
    const ejected = this.#counters.gauge(metrics.ejected, service);
    if (to === 'ejected') this.#counters.counter(metrics.ejections, service, reason).add();
    if (to === 'ejected' && from === 'healthy') ejected.add(1);
    if (to === 'healthy') ejected.add(-1);
  }

  /** An instance that was set aside is not registered any more. */
  forgotten(service: ServiceName): void {
    this.#counters.gauge(metrics.ejected, service).add(-1);
  }

  /** The same token, with its attempt counted: how it went and how long it took to connect. */
  observed(service: ServiceName, path: ConnectionPath, attempt: number, token: PickToken): PickToken {
    const handles = this.#attemptHandles(service, path);
    if (attempt > 1) handles.retries.add();
    const began = performance.now();
    return {
      connected() {
        handles.ok.add();
        handles.duration.observe((performance.now() - began) / 1000);
        token.connected();
      },
      failed() {
        handles.failed.add();
        token.failed();
      },
      answered: (status, milliseconds) => token.answered(status, milliseconds),
      finished: () => token.finished(),
    };
  }

  #attemptHandles(service: ServiceName, path: ConnectionPath): AttemptHandles {
    const key = `${path} ${service}`;
    const known = this.#attempts.get(key);
    if (known !== undefined) return known;
    const handles = {
      ok: this.#counters.counter(metrics.connectAttempts, service, 'ok'),
      failed: this.#counters.counter(metrics.connectAttempts, service, 'failed'),
      retries: this.#counters.counter(metrics.connectRetries, service),
      duration: this.#counters.histogram(metrics.connectDuration, path),
    };
    if (this.#attempts.size < MOST_HANDLES) this.#attempts.set(key, handles);
    return handles;
  }

  /** What changed since the last call. */
  drain(tunnels: readonly TunnelView[]): MetricsDelta {
    const byState = new Map<string, number>();
    const streams = { dialled: 0, accepted: 0 };
    for (const { state, direction, streams: open, roundTripMs } of tunnels) {
      const key = `${state} ${direction}`;
      byState.set(key, (byState.get(key) ?? 0) + 1);
      streams[direction] += open;
      if (roundTripMs !== undefined) this.#roundTrip.observe(roundTripMs / 1000);
    }
    for (const direction of ['dialled', 'accepted'] as const) {
      for (const state of ['dialling', 'connecting', 'open', 'draining', 'back-off']) {
        this.#counters
          .gauge(metrics.tunnels, state, direction)
          .set(byState.get(`${state} ${direction}`) ?? 0);
      }
      this.#counters.gauge(metrics.tunnelStreams, direction).set(streams[direction]);
    }
    this.#process.measure();
    return this.#counters.drain();
  }
}
