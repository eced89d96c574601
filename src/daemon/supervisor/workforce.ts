import type { Config } from '../../config/schema.ts';
import type { PolicySet } from '../../model/policy.ts';
import type { Log } from '../../telemetry/log.ts';
import type { WorkerSettings } from '../control/messages.ts';
import type { EventLog } from '../events.ts';
import type { GuardDriver } from '../guard/guard-driver.ts';
import { workerCount } from '../host.ts';
import type { InterceptionDriver } from '../interception/interception-driver.ts';
import type { ServingWatch } from '../interception/serving-watch.ts';
import type { Listener } from '../succession/listeners.ts';
import type { Succession } from '../succession/succession.ts';
import { WorkerSet, type WorkerSetOptions } from '../workers/worker-set.ts';
import type { CatalogueFeed } from './catalogue-feed.ts';
import type { Naming } from './naming.ts';
import type { HostOutages } from './outages.ts';
import type { SupervisorMetrics } from './supervisor-metrics.ts';

interface WorkforceOptions {
  readonly log: Log;
  readonly metrics: SupervisorMetrics;
  readonly feed: CatalogueFeed;
  readonly naming: Naming;
  readonly interception: InterceptionDriver;
  readonly serving: ServingWatch;
  readonly guard: GuardDriver;
  readonly outages: HostOutages;
  readonly events: EventLog;
  readonly succession: Succession;
  readonly listeners: readonly Listener[];
  config(): Config;
  settings(): WorkerSettings;
  policies(): PolicySet;
  /** The agent ends: its workers are expected to go. */
  stopping(): boolean;
  /** How many of how many serve. */
  onServing(serving: number, size: number): void;
}

/** The workers, and what follows on this host from how many of them serve. */
export class Workforce {
  readonly workers: WorkerSet;
  readonly #options: WorkforceOptions;

  /** Starts the workers, or adopts those that serve already; {@link check} is the caller's. */
  constructor(options: WorkforceOptions) {
    this.#options = options;
    const { daemon } = options.config();
    this.workers = new WorkerSet({
      size: workerCount(options.config()),
      hangTimeoutMs: daemon.hangTimeout,
      heartbeatMs: daemon.heartbeatInterval,
      start: (index, events) => options.succession.start(index, events),
      known: () => options.feed.knowledge.known,
      full: () => options.feed.full(),
      settings: () => options.settings(),
      policies: () => options.policies(),
      ...this.#events(),
    });
  }

  /** Looks how many serve: whether the agent is ready, connections are intercepted and names are answered follows. */
  check(): void {
    const { stopping, onServing, serving, config, succession } = this.#options;
    // Undefined while the workers are being started.
    const workers = this.workers as WorkerSet | undefined;
    if (workers === undefined || stopping()) return;
    onServing(workers.serving, workers.size);
    serving.check(workers.serving, config().daemon.suspendTimeout);
    this.#answerNames();
    succession.changed(workers);
  }

  #events(): Omit<
    WorkerSetOptions,
    'size' | 'hangTimeoutMs' | 'heartbeatMs' | 'start' | 'known' | 'full' | 'settings' | 'policies'
  > {
    const { log, metrics, feed, interception, serving, guard, outages, events, config, stopping } =
      this.#options;
    return {
      onAcknowledged: (version) => {
        const snapshot = feed.acknowledged(version);
        if (snapshot === undefined) return;
        outages.use(snapshot);
        interception.acknowledged(snapshot);
      },
      onBeat: (silentMs) => {
        serving.beat(silentMs, config().daemon.suspendTimeout);
        this.#answerNames();
      },
      onMetrics: (index, delta) => metrics.worker(`worker-${index}`, delta),
      onMeasured: (index, vitals) => guard.measured(`worker-${index}`, vitals),
      onOutages: (pid, down) => outages.heard(pid, down),
      onEvent: (index, event) => events.add(`worker-${index}`, event),
      onTransition: (index, pid, from, to) => {
        log.info({ worker: index, pid, from, to }, `worker: ${from} → ${to}`);
        if (to === 'draining' || to === 'gone') outages.gone(pid);
        this.check();
      },
      onExit: (index, pid, why) => {
        metrics.workerGone(`worker-${index}`, why.startsWith('exited') ? 'exit' : 'killed');
        guard.gone(`worker-${index}`, stopping());
        if (!stopping()) {
          log.error({ worker: index, pid, why }, 'worker: gone, replacing it');
          events.add('supervisor', { kind: 'worker', text: `worker ${index} is gone, and replaced: ${why}` });
        }
        this.check();
      },
    };
  }

  /** Names resolve also while no worker answers. */
  #answerNames(): void {
    const { stopping, interception, naming, listeners } = this.#options;
    if (stopping()) return;
    const nobody = this.workers.serving === 0 || interception.suspensions.includes('nobody-serves');
    naming.standIn(nobody, listeners);
  }
}
