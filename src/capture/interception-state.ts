/**
 * - `absent`: nothing of ours is known to be in the kernel (the beginning, and after `remove`).
 * - `applied`: rules stand and redirect.
 * - `withdrawn`: new connections go direct, live ones go on; what must hold without interception stands.
 * - `withdrawn-by-operator`: somebody took rules away again and again; what redirects is gone, the rest is as they
 *   left it, nothing is put back, and only an explicit `apply` ends it.
 * - `failed`: the last change was refused by the kernel; what stands is what stood before it, or part of it.
 */
export const interceptionStates = [
  'absent',
  'applied',
  'withdrawn',
  'withdrawn-by-operator',
  'failed',
] as const;
export type InterceptionState = (typeof interceptionStates)[number];

/** From where each state may be entered. */
const predecessors: Readonly<Record<InterceptionState, readonly InterceptionState[]>> = {
  absent: interceptionStates,
  applied: interceptionStates,
  withdrawn: interceptionStates,
  'withdrawn-by-operator': ['applied', 'withdrawn', 'failed'],
  failed: interceptionStates,
};

/** Holds the state; the one way to change it. */
export class StateMachine {
  #state: InterceptionState = 'absent';
  readonly #changed: (from: InterceptionState, to: InterceptionState, why: string) => void;

  constructor(changed: (from: InterceptionState, to: InterceptionState, why: string) => void) {
    this.#changed = changed;
  }

  get state(): InterceptionState {
    return this.#state;
  }

  /** Goes to `next`, if it may be entered from here; every change is told. Throws a RangeError otherwise. */
  transition(next: InterceptionState, why: string): void {
    const from = this.#state;
    if (!predecessors[next].includes(from)) throw new RangeError(`interception: ${from} → ${next}`);
    this.#state = next;
    if (from !== next) this.#changed(from, next, why);
  }
}
