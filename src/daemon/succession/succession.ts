import { randomBytes } from 'node:crypto';
import type { Config } from '../../config/schema.ts';
import { socketInode } from '../../io/bound-socket.ts';
import type { Poller } from '../../io/poller.ts';
import type { MetricsDelta } from '../../telemetry/counters.ts';
import type { Log } from '../../telemetry/log.ts';
import type { WorkerSettings } from '../control/messages.ts';
import { workerCount } from '../host.ts';
import { type LaunchOptions, launchWorker } from '../workers/launch.ts';
import { type RosterEntry, readRoster, stillRuns, writeRoster } from '../workers/roster.ts';
import type { WorkerEvents, WorkerProcess } from '../workers/worker-process.ts';
import type { WorkerSet } from '../workers/worker-set.ts';
import { adopt, dismiss, judge } from './adoption.ts';
import { startFingerprint } from './hello.ts';
import { Leftovers } from './leftovers.ts';
import type { Listener } from './listeners.ts';
import type { OwnProgram } from './own-program.ts';
import { type Arrival, Reception } from './reception.ts';

/** Workers of the version before serve until all of this one do, at most this long. */
const RELIEF_MS = 15_000;

interface SuccessionOptions {
  readonly log: Log;
  readonly poller: Poller;
  readonly program: OwnProgram;
  /** See {@link WorkerOrigin.adoptable}. */
  readonly adoptable: boolean;
  config(): Config;
  settings(): WorkerSettings;
  onMetrics(name: string, delta: MetricsDelta): void;
  onGone(name: string): void;
  /** True once new workers can know what those of before do. */
  known(): boolean;
}

/**
 * What one supervisor takes over from the one before, and leaves to the next: workers that serve, and workers that
 * finish. Workers come by themselves ({@link Reception}); which ones will is written down ({@link readRoster}).
 */
export class Succession {
  readonly leftovers: Leftovers;
  readonly #options: SuccessionOptions;
  readonly #reception: Reception;
  readonly #expected: readonly RosterEntry[];
  #adopted = new Map<number, Arrival>();
  #launch: LaunchOptions | undefined;
  #relief: NodeJS.Timeout | undefined;

  /** From now on workers are received. Throws a MeshError when the socket for it cannot be made. */
  constructor(options: SuccessionOptions) {
    this.#options = options;
    const { log, poller, program, onMetrics, onGone } = options;
    const { daemon } = options.config();
    this.#expected = readRoster(daemon.runtimeDirectory);
    this.#reception = new Reception(poller, daemon.runtimeDirectory, log);
    this.leftovers = new Leftovers({
      ...{ log, build: program.identity.build, onMetrics, onGone },
      heartbeatMs: daemon.heartbeatInterval,
      hangTimeoutMs: daemon.hangTimeout,
    });
  }

  /** A port is taken, so workers of before listen on sockets that are not ours: they let go. */
  async portTaken(): Promise<void> {
    const { arrivals } = await this.#reception.gather([], 0);
    const { upgradeDrainTimeout } = this.#options.config().daemon;
    for (const arrival of arrivals) dismiss(arrival, upgradeDrainTimeout);
  }

  /**
   * Waits for the workers of before, at most `daemon.hangTimeout`, and decides what becomes of them. One that runs and
   * does not come hangs, and is ended.
   */
  async gather(listeners: readonly Listener[]): Promise<void> {
    const { log, program, adoptable, config, settings } = this.#options;
    const { hangTimeout } = config().daemon;
    const { arrivals, silent } = await this.#reception.gather(this.#expected, hangTimeout);
    for (const entry of silent) {
      log.error({ pid: entry.pid }, 'worker: still there and silent, killed');
      if (stillRuns(entry)) process.kill(entry.pid, 'SIGKILL');
    }
    const { adopted, others } = judge(arrivals, {
      build: program.identity.build,
      fingerprint: startFingerprint(settings()),
      listeners: listeners.map(({ fd }) => socketInode(fd)),
      size: workerCount(config()),
    });
    this.#adopted = new Map(adopted);
    for (const [index, { pid }] of adopted) log.info({ worker: index, pid }, 'worker: adopted');
    for (const { arrival, why } of others) {
      log.info({ pid: arrival.pid, why }, 'worker: left over');
      this.leftovers.add(arrival);
    }
    const epoch = adopted.values().next().value?.hello.epoch;
    this.#launch = {
      ...{ listeners, program, adoptable, hangTimeoutMs: hangTimeout },
      epoch: epoch === undefined ? randomBytes(8).readBigUInt64LE() : BigInt(epoch),
    };
    this.#relief = setTimeout(() => this.#relieve(), RELIEF_MS);
    this.#reception.follow((arrival) => {
      this.leftovers.add(arrival);
      this.#relieve();
    });
  }

  /** The worker for a place: one that was adopted, else a new one. */
  start(index: number, events: WorkerEvents): WorkerProcess {
    const arrival = this.#adopted.get(index);
    this.#adopted.delete(index);
    if (arrival?.link.open === true) return adopt(arrival, this.#launch!.hangTimeoutMs, events);
    return launchWorker(index, this.#launch!, events);
  }

  /** The workers have changed: those of before are relieved once all serve. */
  changed(workers: WorkerSet): void {
    if (workers.serving === workers.size && this.#options.known()) this.#relieve();
    if (this.#options.adoptable) this.#note(workers);
  }

  /** Tells everybody who serves that another supervisor comes, and that one who they are. */
  async handOver(workers: Iterable<WorkerProcess>): Promise<void> {
    const all = [...workers, ...Array.from(this.leftovers, ({ worker }) => worker)];
    // A start that failed before anybody was taken over leaves them expected as they were.
    if (all.length > 0) this.#note(all);
    await Promise.all(all.map((worker) => worker.awaitNext()));
  }

  /** Writes down who will wait for the next supervisor. */
  #note(workers: Iterable<WorkerProcess>): void {
    const waiting = Array.from(workers).filter(({ state }) => state === 'serving');
    try {
      writeRoster(
        this.#options.config().daemon.runtimeDirectory,
        waiting.map(({ pid }) => pid),
      );
    } catch (error) {
      this.#options.log.warn({ error }, 'worker: the list for the next supervisor was not written');
    }
  }

  close(): void {
    clearTimeout(this.#relief);
    this.#reception.close();
  }

  #relieve(): void {
    clearTimeout(this.#relief);
    this.leftovers.drain(this.#options.config().daemon.upgradeDrainTimeout);
  }
}
