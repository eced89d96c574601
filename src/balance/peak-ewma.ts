/** Time in which an old delay loses all but 1/e of its say. As in Finagle and Linkerd. */
const DECAY_MS = 10_000;
/** What is believed of an instance before its first answer, where nothing is known of its neighbours. As in Linkerd. */
export const DEFAULT_LATENCY_MS = 30;
/** Least delay, so that a long silence leaves a difference between an idle instance and a busy one. */
const LEAST_MS = 0.01;
/** Most that failures in a row multiply the cost by: no load is attracted, and a recovery is seen within a minute. */
const MAX_PENALTY = 1024;

/**
 * How long an instance takes to answer, in milliseconds: an exponentially weighted moving average over time that takes a
 * rise at once and forgets it slowly. While nobody waits for an answer it falls towards zero, so that a slow instance is tried
 * again after a while, by one request at a time. Each failure doubles the cost, whatever its delay: who fails fast must
 * not look fast.
 */
export class PeakEwma {
  #estimate: number;
  #penalty = 1;
  #stamp: number;
  #measured = false;
  /** Those who wait for an answer, and since when none has come although somebody waits. */
  #waiting = 0;
  #since = 0;

  /** `now`: milliseconds of a clock that never goes back. */
  constructor(estimate: number, now: number) {
    this.#estimate = estimate;
    this.#stamp = now;
  }

  /** False while it is only believed. */
  get measured(): boolean {
    return this.#measured;
  }

  /** Expected delay of one request, with what failures add to it; `idle`: nobody waits for an answer. */
  cost(now: number, idle: boolean): number {
    const kept = idle ? this.#kept(now) : 1;
    const silence = this.#waiting > 0 ? now - this.#since : 0;
    return Math.max(this.#estimate * kept, silence, LEAST_MS) * (1 + (this.#penalty - 1) * kept);
  }

  /** Somebody waits for an answer from now on. */
  asked(now: number): void {
    if (this.#waiting++ === 0) this.#since = now;
  }

  /** One of those waits no longer, answered or not. */
  left(): void {
    this.#waiting--;
  }

  /** The delay alone, as of the last answer. */
  get estimate(): number {
    return this.#estimate;
  }

  /** An answer that is none of a failure. */
  answered(milliseconds: number, now: number): void {
    this.#since = now;
    const kept = this.#age(now);
    this.#take(milliseconds, kept);
    this.#measured = true;
    this.#penalty = 1 + (this.#penalty - 1) / 2;
  }

  /** A failure, after so long. Only a slow one says how long an answer takes. */
  failed(milliseconds: number, now: number): void {
    this.#since = now;
    this.#age(now);
    this.#estimate = Math.max(this.#estimate, milliseconds);
    this.#penalty = Math.min(this.#penalty * 2, MAX_PENALTY);
  }

  /** What was known is old: one that was set aside begins again as a new one would. */
  restart(estimate: number, now: number): void {
    this.#estimate = estimate;
    this.#penalty = 1;
    this.#stamp = now;
    this.#measured = false;
  }

  #take(milliseconds: number, kept: number): void {
    if (!this.#measured || milliseconds > this.#estimate) this.#estimate = milliseconds;
    else this.#estimate += milliseconds * (1 - kept);
  }

  /** Applies the time that has passed; answers what it left. */
  #age(now: number): number {
    const kept = this.#kept(now);
    this.#estimate *= kept;
    this.#penalty = 1 + (this.#penalty - 1) * kept;
    this.#stamp = now;
    return kept;
  }

  #kept(now: number): number {
    return Math.exp((this.#stamp - now) / DECAY_MS);
  }
}
