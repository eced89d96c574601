/**
 * Waits until changes have settled: acts once nothing was touched for `quiet` milliseconds, and at the latest `latest`
 * milliseconds after the first touch, so that constant change cannot postpone it for ever.
 */
export class Settling {
  readonly #quiet: number;
  readonly #latest: number;
  readonly #act: () => void;
  #first: number | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(quiet: number, latest: number, act: () => void) {
    this.#quiet = quiet;
    this.#latest = latest;
    this.#act = act;
  }

  touch(): void {
    const now = performance.now();
    this.#first ??= now;
    clearTimeout(this.#timer);
    const delay = Math.max(0, Math.min(this.#quiet, this.#first + this.#latest - now));
    this.#timer = setTimeout(() => {
      this.clear();
      this.#act();
    }, delay);
  }

  /** Forgets what was touched. */
  clear(): void {
    clearTimeout(this.#timer);
    this.#first = undefined;
  }
}
