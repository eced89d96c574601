/** Timers fire up to this much early by the clock of `performance.now()`, in ms. */
const EARLY_MS = 1;
const NEVER = Number.POSITIVE_INFINITY;

/** Told when a bound is over. */
export interface ClockedExchange {
  requestExpired(): void;
  attemptExpired(): void;
}

/** The bounds on the time of one exchange: one timer, for the one that is due first. */
export class ExchangeClock {
  readonly #after: (milliseconds: number, expired: () => void) => () => void;
  readonly #exchange: ClockedExchange;
  #requestDue = NEVER;
  #attemptDue = NEVER;
  #armedFor = NEVER;
  #disarm: () => void = () => {};

  constructor(after: (milliseconds: number, expired: () => void) => () => void, exchange: ClockedExchange) {
    this.#after = after;
    this.#exchange = exchange;
  }

  /** All of it, from now on. */
  boundRequest(milliseconds: number): void {
    this.#requestDue = performance.now() + milliseconds;
    this.#arm();
  }

  /** An attempt begins. */
  boundAttempt(milliseconds: number): void {
    this.#attemptDue = performance.now() + milliseconds;
    this.#arm();
  }

  /** The attempt is over, or has brought an answer. */
  attemptOver(): void {
    this.#attemptDue = NEVER;
  }

  stop(): void {
    this.#requestDue = NEVER;
    this.#attemptDue = NEVER;
    this.#armedFor = NEVER;
    this.#disarm();
  }

  /** A timer that fires too early looks again: bounds of attempts move often, and the one on the request never. */
  #arm(): void {
    const due = Math.min(this.#requestDue, this.#attemptDue);
    if (due >= this.#armedFor) return;
    this.#disarm();
    this.#armedFor = due;
    this.#disarm = this.#after(Math.max(0, due - performance.now()), () => this.#fired());
  }

  #fired(): void {
    this.#armedFor = NEVER;
    const now = performance.now() + EARLY_MS;
    if (this.#requestDue <= now) {
      this.stop();
      this.#exchange.requestExpired();
      return;
    }
    if (this.#attemptDue <= now) {
      this.#attemptDue = NEVER;
      this.#exchange.attemptExpired();
    }
    if (Math.min(this.#requestDue, this.#attemptDue) < NEVER) this.#arm();
  }
}
