import type { Retries } from '../model/policy.ts';

/** What is looked back on: ten seconds, as in Finagle's and Linkerd's budgets. */
const SLICE_MS = 1000;
const SLICES = 10;

/**
 * How many retries a service may get of one worker: a share of its requests of the last ten seconds, and so many a second
 * besides. A count for each request would multiply a storm; a share of all of them cannot.
 */
export class RetryBudget {
  readonly #requests = new Uint32Array(SLICES);
  readonly #retries = new Uint32Array(SLICES);
  #slice = 0;
  #requestSum = 0;
  #retrySum = 0;

  /** A request, at `now` in milliseconds of a clock that never goes back. */
  request(now: number): void {
    const slice = this.#turn(now);
    this.#requests[slice]!++;
    this.#requestSum++;
  }

  /** Takes one retry; false when there is none left. */
  tryRetry(now: number, { percent, perSecond }: Retries['budget'], workers: number): boolean {
    const slice = this.#turn(now);
    const allowed = (this.#requestSum * percent) / 100 + (perSecond * SLICES) / workers;
    if (this.#retrySum + 1 > allowed) return false;
    this.#retries[slice]!++;
    this.#retrySum++;
    return true;
  }

  /** Forgets what is over; the place of this second. */
  #turn(now: number): number {
    const slice = Math.floor(now / SLICE_MS);
    const steps = Math.min(slice - this.#slice, SLICES);
    for (let step = 1; step <= steps; step++) {
      const place = (slice - steps + step) % SLICES;
      this.#requestSum -= this.#requests[place]!;
      this.#retrySum -= this.#retries[place]!;
      this.#requests[place] = 0;
      this.#retries[place] = 0;
    }
    if (steps > 0) this.#slice = slice;
    return this.#slice % SLICES;
  }
}
