import type { Config } from '../../config/schema.ts';
import type { Vitals } from './vitals.ts';

/** What the agent can be found to suffer from. */
export const guardMeasures = ['delay', 'errors', 'descriptors', 'conntrack', 'crashes'] as const;
export type GuardMeasure = (typeof guardMeasures)[number];

/** Why new connections should go direct. */
export interface Finding {
  readonly measure: GuardMeasure;
  /** One sentence with the numbers. */
  readonly detail: string;
}

/** The connection tracking table of this network namespace. */
export interface ConntrackUse {
  readonly entries: number;
  readonly most: number;
}

/** Fewer connections than this are no share of anything. */
const LEAST_CONNECTIONS = 20;
/** A worker is late again and again: in at least so many pieces, and for this part of the window in all. */
const LEAST_DELAYS = 2;
const DELAYED_SHARE = 0.5;
/** Readings in a row beyond a bound. */
const READINGS = 2;
/** Workers that die one after the other: so many within so long. Each takes its connections along. */
const MOST_CRASHES = 5;
const CRASH_WINDOW_MS = 10_000;
/** Most measurements of one worker that are kept: 200 s of them. */
const MOST_SAMPLES = 1000;
/** Most workers that are followed, draining ones of older versions included. */
const MOST_WORKERS = 64;

/**
 * What was measured within `guard.window`, and what it amounts to. No clock and no I/O of its own; all times are
 * those of the host's monotonic clock.
 */
export class GuardWindow {
  #limits: Config['guard'];
  readonly #workers = new Map<string, Vitals[]>();
  readonly #conntrack: ConntrackUse[] = [];
  #crashes: number[] = [];

  constructor(limits: Config['guard']) {
    this.#limits = limits;
  }

  configure(limits: Config['guard']): void {
    this.#limits = limits;
  }

  measured(worker: string, vitals: Vitals): void {
    let samples = this.#workers.get(worker);
    if (samples === undefined) {
      if (this.#workers.size >= MOST_WORKERS) return;
      samples = [];
      this.#workers.set(worker, samples);
    }
    samples.push(vitals);
    if (samples.length > MOST_SAMPLES) samples.shift();
  }

  /** A worker ended. Its measurements say nothing about the one that replaces it. */
  gone(worker: string): void {
    this.#workers.delete(worker);
  }

  /** A worker ended that nobody had told to. */
  crashed(now: number): void {
    this.#crashes.push(now);
    if (this.#crashes.length > MOST_CRASHES) this.#crashes.shift();
  }

  tracked(use: ConntrackUse): void {
    this.#conntrack.push(use);
    if (this.#conntrack.length > READINGS) this.#conntrack.shift();
  }

  /**
   * The gravest reason against taking new connections; undefined when there is none.
   * @param share of the bounds on descriptors and conntrack that counts: below 1, to be well below them again.
   */
  judge(now: number, share: number): Finding | undefined {
    const from = now - this.#limits.window;
    for (const samples of this.#workers.values()) {
      let old = 0;
      while (old < samples.length && samples[old]!.at < from) old++;
      if (old > 0) samples.splice(0, old);
    }
    return (
      this.#shortage(share) ??
      this.#fullTable(share) ??
      this.#lateness() ??
      this.#errors() ??
      this.#dying(now)
    );
  }

  #shortage(share: number): Finding | undefined {
    const most = this.#limits.maxDescriptorsPercent * share;
    for (const [worker, samples] of this.#workers) {
      if (!lastReadings(samples, (one) => percent(one.descriptors, one.descriptorLimit) >= most)) continue;
      const { descriptors, descriptorLimit } = samples.at(-1)!;
      return {
        measure: 'descriptors',
        detail: `${worker} has ${descriptors} of ${descriptorLimit} descriptors in use`,
      };
    }
    return undefined;
  }

  #fullTable(share: number): Finding | undefined {
    const most = this.#limits.maxConntrackPercent * share;
    if (!lastReadings(this.#conntrack, ({ entries, most: all }) => percent(entries, all) >= most)) {
      return undefined;
    }
    const { entries, most: all } = this.#conntrack.at(-1)!;
    return {
      measure: 'conntrack',
      detail: `${entries} of ${all} entries of the connection tracking table are in use`,
    };
  }

  #lateness(): Finding | undefined {
    const { window, maxDelay } = this.#limits;
    for (const [worker, samples] of this.#workers) {
      const late = samples.filter(({ delayMs }) => delayMs > maxDelay);
      const total = late.reduce((sum, { delayMs }) => sum + delayMs, 0);
      if (late.length < LEAST_DELAYS || total < window * DELAYED_SHARE) continue;
      const longest = Math.max(...late.map(({ delayMs }) => delayMs));
      return {
        measure: 'delay',
        detail: `the loop of ${worker} was late ${late.length} times within ${window} ms, by ${Math.round(longest)} ms at most`,
      };
    }
    return undefined;
  }

  #errors(): Finding | undefined {
    let taken = 0;
    let failed = 0;
    for (const samples of this.#workers.values()) {
      for (const one of samples) {
        taken += one.taken;
        failed += one.failed;
      }
    }
    // A connection may end in another measurement than the one in which it came.
    const all = Math.max(taken, failed);
    if (all < LEAST_CONNECTIONS || percent(failed, all) < this.#limits.maxErrorPercent) return undefined;
    return {
      measure: 'errors',
      detail: `${failed} of ${all} new connections failed by the agent's own fault within ${this.#limits.window} ms`,
    };
  }

  #dying(now: number): Finding | undefined {
    this.#crashes = this.#crashes.filter((at) => at > now - CRASH_WINDOW_MS);
    if (this.#crashes.length < MOST_CRASHES) return undefined;
    return {
      measure: 'crashes',
      detail: `workers died ${this.#crashes.length} times within ${CRASH_WINDOW_MS / 1000} s`,
    };
  }
}

function percent(part: number, whole: number): number {
  return whole > 0 ? (100 * part) / whole : 0;
}

/** True when the last readings, as many as it takes, all are so. */
function lastReadings<T>(samples: readonly T[], beyond: (sample: T) => boolean): boolean {
  return samples.length >= READINGS && samples.slice(-READINGS).every(beyond);
}
