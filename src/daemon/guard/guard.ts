import type { Config } from '../../config/schema.ts';
import type { Finding } from './guard-window.ts';
import { CALM_SHARE } from './vitals.ts';

/** `in`: new connections are taken. `out`: they go direct. */
export type GuardState = 'in' | 'out';

/** One step from a state to the other. */
export interface GuardTransition {
  readonly from: GuardState;
  readonly to: GuardState;
  /** Into `out`: what was found. */
  readonly finding: Finding | undefined;
  /** Into `out`: how long there has to be no reason before it ends, in milliseconds. */
  readonly pauseMs: number;
}

/** It is out again "soon" within so many times `guard.returnAfter`, or within its last time out if that was longer. */
const SOON = 6;

/**
 * Whether this agent should take new connections, as a state with hysteresis: out at once when there is a reason (what
 * counts as one looks at several measurements already), back after a time without any, and after a longer one each
 * time that this turns out to have been too early. No clock and no I/O of its own.
 */
export class Guard {
  #limits: Pick<Config['guard'], 'returnAfter' | 'returnMax'>;
  #state: GuardState = 'in';
  #finding: Finding | undefined;
  #since = Number.NEGATIVE_INFINITY;
  /** When a reason was last there, while out. */
  #lastReason = 0;
  #pauseMs = 0;

  constructor(limits: Pick<Config['guard'], 'returnAfter' | 'returnMax'>) {
    this.#limits = limits;
  }

  configure(limits: Pick<Config['guard'], 'returnAfter' | 'returnMax'>): void {
    this.#limits = limits;
  }

  get state(): GuardState {
    return this.#state;
  }

  /** Why it is out; the newest reason, when there were several. */
  get finding(): Finding | undefined {
    return this.#finding;
  }

  /** Share of the bounds that counts now. */
  get share(): number {
    return this.#state === 'in' ? 1 : CALM_SHARE;
  }

  /** Takes what was found now, in order of time; answers with the step that it leads to. */
  next(finding: Finding | undefined, now: number): GuardTransition | undefined {
    if (this.#state === 'in') {
      if (finding === undefined) return undefined;
      const { returnAfter, returnMax } = this.#limits;
      const soon = now - this.#since < Math.max(SOON * returnAfter, this.#pauseMs);
      this.#pauseMs = Math.min(returnMax, soon && this.#pauseMs > 0 ? this.#pauseMs * 2 : returnAfter);
      this.#finding = finding;
      this.#lastReason = now;
      return this.#become('out', now);
    }
    if (finding !== undefined) {
      this.#finding = finding;
      this.#lastReason = now;
      return undefined;
    }
    if (now - this.#lastReason < this.#pauseMs) return undefined;
    this.#finding = undefined;
    return this.#become('in', now);
  }

  #become(to: GuardState, now: number): GuardTransition {
    const from = this.#state;
    this.#state = to;
    this.#since = now;
    return { from, to, finding: this.#finding, pauseMs: this.#pauseMs };
  }
}
