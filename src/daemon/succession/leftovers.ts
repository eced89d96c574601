import type { MetricsDelta } from '../../telemetry/counters.ts';
import type { Log } from '../../telemetry/log.ts';
import { AdoptedLife } from '../workers/worker-life.ts';
import { WorkerProcess } from '../workers/worker-process.ts';
import type { Arrival } from './reception.ts';

/** Workers that finish their connections beside the ones that serve; more are not listened to, and end by themselves. */
const MOST_LEFTOVERS = 64;

interface LeftoversOptions {
  readonly log: Log;
  /** Build of this supervisor: what others count is not understood. */
  readonly build: string;
  readonly heartbeatMs: number;
  readonly hangTimeoutMs: number;
  onMetrics(name: string, delta: MetricsDelta): void;
  onGone(name: string): void;
}

/** A worker of an earlier start, as people see it. */
export interface Leftover {
  readonly name: string;
  readonly build: string;
  readonly worker: WorkerProcess;
}

/**
 * Workers of earlier starts, or of the version before: they keep what they hold until it ends or their time is over,
 * and take nothing new.
 */
export class Leftovers {
  readonly #options: LeftoversOptions;
  readonly #all = new Map<WorkerProcess, Leftover>();
  /** Those that serve until others do. */
  readonly #serving = new Set<WorkerProcess>();
  #heartbeat: NodeJS.Timeout | undefined;

  constructor(options: LeftoversOptions) {
    this.#options = options;
  }

  [Symbol.iterator](): Iterator<Leftover> {
    return this.#all.values();
  }

  get size(): number {
    return this.#all.size;
  }

  /** Takes a worker in, which goes on as it does until {@link drain}. */
  add({ pid, hello, link }: Arrival): void {
    if (this.#all.size >= MOST_LEFTOVERS) {
      link.close();
      return;
    }
    const { log, build, hangTimeoutMs } = this.#options;
    const name = `leftover-${pid}`;
    const worker = new WorkerProcess(
      hello.index,
      new AdoptedLife(pid),
      link,
      hangTimeoutMs,
      {
        stateChanged: (_, from, to) => log.info({ worker: name, pid, from, to }, `worker: ${from} → ${to}`),
        acknowledged: () => {},
        metrics: (_, delta) => {
          if (hello.build === build) this.#options.onMetrics(name, delta);
        },
        measured: () => {},
        outages: () => {},
        event: () => {},
        exited: (gone, why) => this.#gone(gone, why),
      },
      hello.draining ? 'draining' : 'serving',
    );
    this.#all.set(worker, { name, build: hello.build, worker });
    if (!hello.draining) this.#serving.add(worker);
    this.#heartbeat ??= setInterval(() => {
      for (const { worker: each } of this.#all.values()) each.heartbeat();
    }, this.#options.heartbeatMs);
  }

  /** Others serve now: nothing new for those that still did. */
  drain(timeoutMs: number): void {
    for (const worker of this.#serving) worker.drain(timeoutMs, true);
    this.#serving.clear();
  }

  /** The agent stops: all of them have only so much time left, or go on as they are, and are on their own. */
  async leave(timeoutMs: number | undefined): Promise<void> {
    clearInterval(this.#heartbeat);
    await Promise.all(
      Array.from(this.#all.values(), ({ worker }) => {
        if (timeoutMs !== undefined) worker.drain(timeoutMs, true);
        return worker.leave();
      }),
    );
  }

  #gone(worker: WorkerProcess, why: string): void {
    const { name } = this.#all.get(worker)!;
    this.#options.log.info({ worker: name, pid: worker.pid, why }, 'worker: a leftover has ended');
    this.#all.delete(worker);
    this.#serving.delete(worker);
    this.#options.onGone(name);
    if (this.#all.size > 0) return;
    clearInterval(this.#heartbeat);
    this.#heartbeat = undefined;
  }
}
