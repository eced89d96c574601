import type { PolicySet } from '../../model/policy.ts';
import type { Claim, SnapshotDelta } from '../../model/snapshot.ts';
import type { MetricsDelta } from '../../telemetry/counters.ts';
import type { WorkerSettings } from '../control/messages.ts';
import type { WorkerEvent } from '../events.ts';
import type { Vitals } from '../guard/vitals.ts';
import type { WorkerProcess, WorkerState } from './worker-process.ts';

/** First pause before a worker that died young is started again; doubles up to the longest. */
const RESPAWN_BASE_MS = 50;
const RESPAWN_MAX_MS = 5_000;
/** A worker that lived this long and then died is replaced at once. */
const GREW_UP_MS = 10_000;

export interface WorkerSetOptions {
  readonly size: number;
  readonly hangTimeoutMs: number;
  readonly heartbeatMs: number;
  /** A worker that begins, or one that serves already. */
  start(index: number, events: ConstructorParameters<typeof WorkerProcess>[4]): WorkerProcess;
  /** False while no registry has answered and the cache is empty. */
  known(): boolean;
  /** The whole catalogue, for a worker that begins. */
  full(): readonly SnapshotDelta[];
  settings(): WorkerSettings;
  /** All policies, for a worker that begins. */
  policies(): PolicySet;
  /** Every worker routes by this snapshot or a newer one. */
  onAcknowledged(version: number): void;
  onMetrics(index: number, delta: MetricsDelta): void;
  onMeasured(index: number, vitals: Vitals): void;
  onOutages(pid: number, down: readonly Claim[]): void;
  onEvent(index: number, event: WorkerEvent): void;
  onTransition(index: number, pid: number, from: WorkerState, to: WorkerState): void;
  onExit(index: number, pid: number, why: string): void;
  /** With each round of heartbeats: how long none of those that serve has given a sign of life; undefined: none serves. */
  onBeat?(silentMs: number | undefined): void;
}

/** The workers of this agent: keeps their number, tells all of them everything, knows what all of them know. */
export class WorkerSet {
  readonly #options: WorkerSetOptions;
  readonly #workers = new Map<number, WorkerProcess>();
  /** Those that ended and are not replaced yet. */
  readonly #gone = new Map<number, WorkerProcess>();
  /** Adopted workers, which know more than this agent does as yet. */
  readonly #ahead = new Set<WorkerProcess>();
  readonly #failures = new Map<number, number>();
  readonly #restarts = new Map<number, number>();
  readonly #pending = new Set<NodeJS.Timeout>();
  readonly #heartbeat: NodeJS.Timeout;
  #draining = false;
  #onEmpty: (() => void) | undefined;
  #announced = -1;

  constructor(options: WorkerSetOptions) {
    this.#options = options;
    for (let index = 0; index < options.size; index++) this.#start(index);
    let last = performance.now();
    this.#heartbeat = setInterval(() => {
      const now = performance.now();
      // Nobody is judged by a time in which this process itself was stopped or busy.
      if (now - last > options.hangTimeoutMs / 2)
        for (const worker of this.#workers.values()) worker.excuse();
      last = now;
      for (const worker of this.#workers.values()) worker.heartbeat();
      options.onBeat?.(this.#silence());
    }, options.heartbeatMs);
  }

  [Symbol.iterator](): Iterator<WorkerProcess> {
    return this.#workers.values();
  }

  /** One for each place, in order: the worker that is there, else the one that ended there and is not replaced yet. */
  get places(): readonly WorkerProcess[] {
    const places: WorkerProcess[] = [];
    for (let index = 0; index < this.#options.size; index++) {
      const worker = this.#workers.get(index) ?? this.#gone.get(index);
      if (worker !== undefined) places.push(worker);
    }
    return places;
  }

  get serving(): number {
    let serving = 0;
    for (const worker of this.#workers.values()) if (worker.state === 'serving') serving++;
    return serving;
  }

  #silence(): number | undefined {
    let least: number | undefined;
    for (const { state, silentMs } of this.#workers.values())
      if (state === 'serving') least = Math.min(least ?? silentMs, silentMs);
    return least;
  }

  get size(): number {
    return this.#options.size;
  }

  /** How often this worker was replaced. */
  restarts(index: number): number {
    return this.#restarts.get(index) ?? 0;
  }

  publish(delta: SnapshotDelta): void {
    for (const worker of this.#workers.values()) if (!this.#ahead.has(worker)) worker.publish(delta);
  }

  /** There is another catalogue: every worker is given all of it. */
  restart(): void {
    this.#announced = -1;
    this.#ahead.clear();
    for (const worker of this.#workers.values()) worker.restart(this.#options.full());
  }

  /** There is something to know: adopted workers are given it instead of what they knew. */
  catchUp(): void {
    for (const worker of this.#ahead) worker.restart(this.#options.full());
    this.#ahead.clear();
  }

  configure(settings: WorkerSettings): void {
    for (const worker of this.#workers.values()) worker.configure(settings);
  }

  /** Other policies are in force. */
  usePolicies(policies: PolicySet): void {
    for (const worker of this.#workers.values()) worker.usePolicies(policies);
  }

  /** Lets every worker finish its connections; resolves when all are gone. Nothing is started again. */
  async drain(timeoutMs: number, graceMs: number): Promise<void> {
    this.#cease();
    if (this.#workers.size === 0) return;
    const killer = setTimeout(() => {
      for (const worker of this.#workers.values()) worker.kill('it did not finish draining');
    }, timeoutMs + graceMs);
    await new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
      for (const worker of this.#workers.values()) worker.drain(timeoutMs, false);
    });
    clearTimeout(killer);
  }

  /**
   * Leaves the workers to themselves, with this long for their connections, or as they are; resolves once all were told.
   */
  async leave(timeoutMs: number | undefined): Promise<void> {
    this.#cease();
    await Promise.all(
      Array.from(this.#workers.values(), (worker) => {
        if (timeoutMs !== undefined) worker.drain(timeoutMs, true);
        return worker.leave();
      }),
    );
  }

  /** Nobody is watched or replaced any more. */
  #cease(): void {
    this.#draining = true;
    clearInterval(this.#heartbeat);
    for (const timer of this.#pending) clearTimeout(timer);
  }

  #start(index: number): void {
    const worker = this.#options.start(index, {
      stateChanged: (w, from, to) => this.#options.onTransition(w.index, w.pid, from, to),
      acknowledged: () => this.#announce(),
      metrics: (w, delta) => this.#options.onMetrics(w.index, delta),
      measured: (w, vitals) => this.#options.onMeasured(w.index, vitals),
      outages: (w, down) => this.#options.onOutages(w.pid, down),
      event: ({ index }, event) => this.#options.onEvent(index, event),
      exited: (w, why) => this.#exited(w, why),
    });
    this.#workers.set(index, worker);
    this.#gone.delete(index);
    worker.configure(this.#options.settings());
    worker.usePolicies(this.#options.policies());
    // An adopted one serves all the while, with what it knew.
    if (worker.state === 'serving' && !this.#options.known()) this.#ahead.add(worker);
    else if (worker.state === 'serving') worker.restart(this.#options.full());
    else worker.begin(this.#options.full());
  }

  /** Tells the version that every worker has; a worker that is being replaced holds it back, for a bounded time. */
  #announce(): void {
    let least = Number.POSITIVE_INFINITY;
    for (const worker of this.#workers.values()) least = Math.min(least, worker.acknowledged);
    if (!Number.isFinite(least) || least <= this.#announced) return;
    this.#announced = least;
    this.#options.onAcknowledged(least);
  }

  #exited(worker: WorkerProcess, why: string): void {
    this.#workers.delete(worker.index);
    this.#gone.set(worker.index, worker);
    this.#ahead.delete(worker);
    this.#options.onExit(worker.index, worker.pid, why);
    if (this.#draining) {
      if (this.#workers.size === 0) this.#onEmpty?.();
      return;
    }
    this.#restarts.set(worker.index, this.restarts(worker.index) + 1);
    const young = Date.now() - worker.startedAt < GREW_UP_MS;
    const failures = young ? (this.#failures.get(worker.index) ?? 0) + 1 : 0;
    this.#failures.set(worker.index, failures);
    // The first replacement is immediate; only one that keeps dying at start is held back.
    const pause = failures <= 1 ? 0 : Math.min(RESPAWN_MAX_MS, RESPAWN_BASE_MS * 2 ** (failures - 2));
    const timer = setTimeout(() => {
      this.#pending.delete(timer);
      this.#start(worker.index);
    }, pause);
    this.#pending.add(timer);
  }
}
