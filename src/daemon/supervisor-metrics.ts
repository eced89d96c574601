import type { Catalogue } from '../registry/catalogue.ts';
import { Counters } from '../telemetry/counters.ts';
import { metrics } from '../telemetry/definitions.ts';
import { MetricsRegistry } from '../telemetry/metrics-registry.ts';
import type { InterceptionDriver } from './interception-driver.ts';
import type { WorkerSet } from './worker-set.ts';

/** What the supervisor itself counts, and the sum of what its workers do. */
export class SupervisorMetrics {
  readonly #counters = new Counters();
  readonly #registry = new MetricsRegistry();

  constructor(version: string) {
    this.#counters.gauge(metrics.buildInfo, version).set(1);
    this.#counters.gauge(metrics.processStart, 'supervisor').set(Date.now() / 1000 - process.uptime());
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  worker(name: string, delta: Parameters<MetricsRegistry['merge']>[1]): void {
    this.#registry.merge(name, delta);
  }

  workerGone(name: string, cause: 'exit' | 'killed'): void {
    this.#registry.forget(name);
    this.#counters.counter(metrics.workerRestarts, cause).add();
  }

  reload(outcome: 'ok' | 'refused'): void {
    this.#counters.counter(metrics.configurationReloads, outcome).add();
  }

  /** Everything, measured at the moment it is asked for. */
  async text(state: {
    readonly ready: boolean;
    readonly catalogue: Catalogue;
    readonly workers: WorkerSet;
    readonly interception: InterceptionDriver;
    readonly certificateExpiresAt: number | undefined;
  }): Promise<string> {
    const counters = this.#counters;
    const { catalogue, workers } = state;
    counters.gauge(metrics.ready).set(state.ready ? 1 : 0);
    if (state.certificateExpiresAt !== undefined) {
      counters.gauge(metrics.certificateExpiry).set(state.certificateExpiresAt / 1000);
    }
    const { version, services, registries } = catalogue.status;
    counters.gauge(metrics.snapshotVersion).set(version);
    counters.gauge(metrics.snapshotServices).set(services);
    let instances = 0;
    for (const { name, state: registryState, confirmedAt, instances: count } of registries) {
      instances += count;
      counters.gauge(metrics.registryUp, name).set(registryState === 'synced' ? 1 : 0);
      if (confirmedAt !== undefined) {
        counters.gauge(metrics.registryAge, name).set(Math.max(0, Date.now() - confirmedAt) / 1000);
      }
    }
    counters.gauge(metrics.snapshotInstances).set(instances);
    counters.gauge(metrics.workersRunning).set(workers.serving);
    for (const worker of workers) {
      counters.gauge(metrics.workerSnapshotVersion, `worker-${worker.index}`).set(worker.acknowledged);
    }
    const { state: rules, allowEntries, allowListProblems } = state.interception.status;
    for (const known of ['absent', 'applied', 'withdrawn', 'withdrawn-by-operator', 'failed']) {
      counters.gauge(metrics.rulesState, known).set(known === rules ? 1 : 0);
    }
    counters.gauge(metrics.allowListEntries).set(allowEntries);
    counters.gauge(metrics.allowListErrors).set(allowListProblems.length);
    this.#registry.merge('supervisor', counters.drain());
    return this.#registry.text();
  }
}
