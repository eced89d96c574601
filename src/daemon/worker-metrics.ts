import type { HealthTransition } from '../balance/health.ts';
import type { ServiceName } from '../model/service.ts';
import type { PickToken } from '../proxy/outbound.ts';
import { ConnectionMetrics } from '../telemetry/connection-metrics.ts';
import { Counters, type MetricsDelta } from '../telemetry/counters.ts';
import { metrics } from '../telemetry/definitions.ts';
import type { TunnelView } from './tunnel-view.ts';

/** What one worker counts. */
export class WorkerMetrics {
  readonly #counters = new Counters();
  readonly connections = new ConnectionMetrics(this.#counters);
  readonly #overLimit = this.#counters.counter(metrics.connectionsOverLimit);
  readonly #dropped = this.#counters.counter(metrics.accessLogDropped);

  accessLogDropped(lines: number): void {
    this.#dropped.add(lines);
  }

  refusedAtLimit(): void {
    this.#overLimit.add();
  }

  health({ service, to, from }: HealthTransition): void {
    const ejected = this.#counters.gauge(metrics.ejected, service);
    if (to === 'ejected') this.#counters.counter(metrics.ejections, service).add();
    if (to === 'ejected' && from === 'healthy') ejected.add(1);
    if (to === 'healthy') ejected.add(-1);
  }

  /** The same token, with its outcome counted. */
  observed(service: ServiceName, token: PickToken): PickToken {
    const count = (outcome: 'ok' | 'failed') =>
      this.#counters.counter(metrics.connectAttempts, service, outcome).add();
    return {
      connected() {
        count('ok');
        token.connected();
      },
      failed() {
        count('failed');
        token.failed();
      },
      finished: () => token.finished(),
    };
  }

  /** What changed since the last call. */
  drain(tunnels: readonly TunnelView[]): MetricsDelta {
    const byState = new Map<string, number>();
    const streams = { dialled: 0, accepted: 0 };
    for (const { state, direction, streams: open } of tunnels) {
      const key = `${state} ${direction}`;
      byState.set(key, (byState.get(key) ?? 0) + 1);
      streams[direction] += open;
    }
    for (const direction of ['dialled', 'accepted'] as const) {
      for (const state of ['dialling', 'connecting', 'open', 'draining', 'back-off']) {
        this.#counters
          .gauge(metrics.tunnels, state, direction)
          .set(byState.get(`${state} ${direction}`) ?? 0);
      }
      this.#counters.gauge(metrics.tunnelStreams, direction).set(streams[direction]);
    }
    return this.#counters.drain();
  }
}
