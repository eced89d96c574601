/** Credit of a stream before its ACCEPT, and the least window ever: what a stream always has. */
export const OPEN_CREDIT: number = 16 * 1024;

/** Most credit that a peer may heap up. */
export const MAX_CREDIT: number = 2 ** 31;

/** What the windows of one session may hold together, beyond {@link OPEN_CREDIT} for each stream. */
export class WindowBudget {
  readonly limit: number;
  #committed = 0;

  constructor(limit: number) {
    this.limit = limit;
  }

  get committed(): number {
    return this.#committed;
  }

  /** Takes up to `bytes`; returns what was left to take. */
  take(bytes: number): number {
    const taken = Math.max(0, Math.min(bytes, this.limit - this.#committed));
    this.#committed += taken;
    return taken;
  }

  giveBack(bytes: number): void {
    this.#committed -= bytes;
  }
}

/**
 * The receiving side's window of one stream: what the peer may still send, and when it gets more. The window starts at
 * {@link OPEN_CREDIT}, is widened at ACCEPT, and doubles when the peer used it up within two round trips.
 */
export class ReceiveWindow {
  readonly #budget: WindowBudget;
  readonly #max: number;
  /** Size of the window: what the peer may have under way or in our hands. */
  #size = OPEN_CREDIT;
  /** What the peer may still send. */
  #credit: number;
  /** Taken by the application and not yet given back. */
  #consumed = 0;
  /** Consumed since the window's clock was started. */
  #round = 0;
  #roundStart = 0;

  constructor(budget: WindowBudget, max: number, openCredit: number = OPEN_CREDIT) {
    this.#budget = budget;
    this.#max = max;
    this.#credit = openCredit;
  }

  get size(): number {
    return this.#size;
  }

  /** Bytes arrived; false when the peer had no credit for them. */
  received(bytes: number): boolean {
    this.#credit -= bytes;
    return this.#credit >= 0;
  }

  /** Widens the window to `size` as far as the session's budget goes; returns the credit to give. */
  widen(size: number): number {
    const granted = this.#budget.take(Math.min(size, this.#max) - this.#size);
    this.#size += granted;
    this.#credit += granted;
    return granted;
  }

  /** The application took bytes; true when a WINDOW frame is due. */
  consumed(bytes: number): boolean {
    this.#consumed += bytes;
    this.#round += bytes;
    // A quarter: often enough that the peer never stands still, seldom enough that WINDOW frames cost nothing.
    return this.#consumed >= this.#size >>> 2;
  }

  /** The credit to give now; grows the window when the path's delay asks for it. `rtt` in ms, undefined: not known yet. */
  grant(now: number, rtt: number | undefined): number {
    const credit = this.#consumed;
    this.#consumed = 0;
    this.#credit += credit;
    if (this.#round < this.#size) return credit;
    const fast = this.#roundStart > 0 && rtt !== undefined && now - this.#roundStart <= 2 * rtt;
    this.#round = 0;
    this.#roundStart = now;
    return fast ? credit + this.widen(this.#size * 2) : credit;
  }

  /** The stream is over: its share goes back. */
  release(): void {
    this.#budget.giveBack(this.#size - OPEN_CREDIT);
    this.#size = OPEN_CREDIT;
  }
}
