import { readFile } from 'node:fs/promises';
import type { GuardStatus } from '../../admin/api.ts';
import type { Config } from '../../config/schema.ts';
import { monotonicMs } from '../../io/monotonic.ts';
import type { Counters } from '../../telemetry/counters.ts';
import { metrics } from '../../telemetry/definitions.ts';
import type { Log } from '../../telemetry/log.ts';
import type { InterceptionDriver } from '../interception/interception-driver.ts';
import { Guard } from './guard.ts';
import { type ConntrackUse, type GuardMeasure, GuardWindow, guardMeasures } from './guard-window.ts';
import { areVitals, type Vitals } from './vitals.ts';

/** How often it is judged. With two measurements in a row it bounds how soon a shortage has an effect. */
const JUDGE_MS = 250;
/** Judgements from one look at the connection tracking table to the next. */
const CONNTRACK_EVERY = 2;
const CONNTRACK = '/proc/sys/net/netfilter/nf_conntrack_';

export interface GuardDriverOptions {
  readonly limits: Config['guard'];
  readonly log: Log;
  readonly counters: Counters;
  readonly interception: Pick<InterceptionDriver, 'suspend' | 'resume'>;
  /** Undefined where connections are not tracked. */
  readonly conntrack?: () => Promise<ConntrackUse | undefined>;
}

/** The agent's look at itself: gathers what workers and kernel say, and withdraws from new connections while it would harm them. */
export class GuardDriver {
  readonly #options: GuardDriverOptions;
  readonly #window: GuardWindow;
  readonly #guard: Guard;
  readonly #timer: NodeJS.Timeout;
  #due = monotonicMs() + JUDGE_MS;
  #turn = 0;
  #asking = false;
  #outSince: number | undefined;

  constructor(options: GuardDriverOptions) {
    this.#options = options;
    this.#window = new GuardWindow(options.limits);
    this.#guard = new Guard(options.limits);
    for (const measure of guardMeasures) this.#out(measure).set(0);
    this.#timer = setInterval(() => this.#judge(), JUDGE_MS);
    this.#timer.unref();
  }

  configure(limits: Config['guard']): void {
    this.#window.configure(limits);
    this.#guard.configure(limits);
  }

  get status(): GuardStatus {
    const { state, finding } = this.#guard;
    return {
      state,
      ...(finding === undefined ? {} : { measure: finding.measure, reason: finding.detail }),
      ...(this.#outSince === undefined ? {} : { since: this.#outSince }),
    };
  }

  /** What a worker measured. */
  measured(worker: string, vitals: Vitals): void {
    if (areVitals(vitals)) this.#window.measured(worker, vitals);
  }

  /** A worker ended; `told`: because it was meant to. */
  gone(worker: string, told: boolean): void {
    this.#window.gone(worker);
    if (!told) this.#window.crashed(monotonicMs());
  }

  /** From now on nothing changes any more. */
  stop(): void {
    clearInterval(this.#timer);
  }

  #judge(): void {
    const now = monotonicMs();
    const { counters, log } = this.#options;
    // Shown and not judged: connections do not pass through this process, so they do not suffer with it.
    counters.histogram(metrics.eventLoopDelay, 'supervisor').observe(Math.max(0, now - this.#due) / 1000);
    this.#due = now + JUDGE_MS;
    if (this.#turn++ % CONNTRACK_EVERY === 0) void this.#lookAtConntrack();
    const step = this.#guard.next(this.#window.judge(now, this.#guard.share), now);
    if (step === undefined) return;
    const { from, to, finding, pauseMs } = step;
    for (const measure of guardMeasures) this.#out(measure).set(finding?.measure === measure ? 1 : 0);
    if (finding === undefined) {
      this.#outSince = undefined;
      log.info({ from, to }, `guard: ${from} → ${to}`);
      void this.#options.interception.resume('overload');
      return;
    }
    this.#outSince = Date.now();
    counters.counter(metrics.guardWithdrawals, finding.measure).add();
    const { measure, detail } = finding;
    log.error({ from, to, measure, detail, pauseMs }, `guard: ${from} → ${to}: new connections go direct`);
    void this.#options.interception.suspend('overload');
  }

  #out(measure: GuardMeasure) {
    return this.#options.counters.gauge(metrics.guardOut, measure);
  }

  async #lookAtConntrack(): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    const use = await (this.#options.conntrack ?? readConntrack)().catch(() => undefined);
    this.#asking = false;
    if (use === undefined) return;
    this.#window.tracked(use);
    const { counters } = this.#options;
    counters.gauge(metrics.conntrackEntries).set(use.entries);
    counters.gauge(metrics.conntrackLimit).set(use.most);
  }
}

/** The table of this network namespace; undefined while the kernel tracks nothing. */
async function readConntrack(): Promise<ConntrackUse | undefined> {
  const [entries, most] = await Promise.all(
    ['count', 'max'].map(async (name) => Number(await readFile(`${CONNTRACK}${name}`, 'utf8'))),
  );
  return entries! >= 0 && most! > 0 ? { entries: entries!, most: most! } : undefined;
}
