import type { Claim } from '../../model/snapshot.ts';
import { type CounterHandle, Counters } from '../../telemetry/counters.ts';
import { metrics } from '../../telemetry/definitions.ts';
import { MetricsRegistry } from '../../telemetry/metrics-registry.ts';
import { ProcessMetrics } from '../../telemetry/process-metrics.ts';
import type { InterceptionDriver } from '../interception/interception-driver.ts';
import type { WorkerSet } from '../workers/worker-set.ts';
import type { ExemptionWatch } from './exemptions.ts';
import type { Knowledge } from './knowledge.ts';
import type { Observer } from './observer.ts';
import type { PolicyFeed } from './policy-feed.ts';

/** What the supervisor itself counts, and the sum of what its workers do. */
export class SupervisorMetrics {
  /** The supervisor's own. */
  readonly counters = new Counters();
  readonly #registry = new MetricsRegistry();
  readonly #process: ProcessMetrics;
  /** Totals that others keep, as they were when they were last added. */
  readonly #totals = new Map<CounterHandle, number>();

  constructor(version: string) {
    this.counters.gauge(metrics.buildInfo, version).set(1);
    this.#process = new ProcessMetrics(this.counters, 'supervisor');
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  worker(name: string, delta: Parameters<MetricsRegistry['merge']>[1]): void {
    this.#registry.merge(name, delta);
  }

  workerGone(name: string, cause: 'exit' | 'killed'): void {
    this.#registry.forget(name);
    this.counters.counter(metrics.workerRestarts, cause).add();
  }

  leftoverGone(name: string): void {
    this.#registry.forget(name);
  }

  reload(outcome: 'ok' | 'refused'): void {
    this.counters.counter(metrics.configurationReloads, outcome).add();
  }

  /** What nobody could reach and refuses at connect. */
  outages(down: readonly Claim[]): void {
    const instances = down.filter(({ instance }) => instance !== undefined).length;
    this.counters.gauge(metrics.outages, 'instance').set(instances);
    this.counters.gauge(metrics.outages, 'service').set(down.length - instances);
  }

  registryLost(source: string): void {
    this.counters.counter(metrics.registryErrors, source).add();
  }

  cacheAnswered(tier: string, known: boolean): void {
    this.counters.counter(metrics.cacheAnswers, tier, known ? 'positive' : 'negative').add();
  }

  #total(counter: CounterHandle, total: number): void {
    counter.add(total - (this.#totals.get(counter) ?? 0));
    this.#totals.set(counter, total);
  }

  /** Everything, measured at the moment it is asked for. */
  async text(state: {
    readonly ready: boolean;
    readonly knowledge: Knowledge;
    readonly workers: WorkerSet;
    readonly interception: InterceptionDriver;
    readonly exemptions: ExemptionWatch;
    readonly observer: Observer;
    readonly policies: Pick<PolicyFeed, 'status'>;
    readonly certificateExpiresAt: number | undefined;
  }): Promise<string> {
    const counters = this.counters;
    const { knowledge, workers } = state;
    counters.gauge(metrics.ready).set(state.ready ? 1 : 0);
    if (state.certificateExpiresAt !== undefined) {
      counters.gauge(metrics.certificateExpiry).set(state.certificateExpiresAt / 1000);
    }
    const { version, services, registries } = knowledge.catalogue.status;
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
      counters.gauge(metrics.workerPolicyVersion, `worker-${worker.index}`).set(worker.policyVersion);
    }
    const { version: policyVersion, since, refused } = state.policies.status;
    counters.gauge(metrics.policyVersion).set(policyVersion);
    counters.gauge(metrics.policyAge).set(Math.max(0, Date.now() - since) / 1000);
    counters.gauge(metrics.policyRefused).set(refused.length > 0 ? 1 : 0);
    const { writes, failedWrites } = knowledge.cacheStatus;
    this.#total(counters.counter(metrics.cacheFileWrites, 'ok'), writes);
    this.#total(counters.counter(metrics.cacheFileWrites, 'failed'), failedWrites);
    const { state: rules, allowEntries, allowListProblems, reasserted } = state.interception.status;
    this.#total(counters.counter(metrics.rulesReasserts), reasserted);
    for (const known of ['absent', 'applied', 'withdrawn', 'withdrawn-by-operator', 'failed']) {
      counters.gauge(metrics.rulesState, known).set(known === rules ? 1 : 0);
    }
    counters.gauge(metrics.allowListEntries).set(allowEntries);
    counters.gauge(metrics.allowListErrors).set(allowListProblems.length);
    counters.gauge(metrics.exemptionProblems).set(state.exemptions.current.problems.length);
    const { seen, lost, pairs } = state.observer.status;
    this.#total(counters.counter(metrics.observedConnections), seen);
    this.#total(counters.counter(metrics.observedLost), lost);
    counters.gauge(metrics.observedPairs).set(pairs);
    this.#process.measure();
    this.#registry.merge('supervisor', counters.drain());
    return this.#registry.text();
  }
}
