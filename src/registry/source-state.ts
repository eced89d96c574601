import {
  MAX_PROBLEMS,
  type RegistryLog,
  type SourceListener,
  type SourceState,
  type SourceStatus,
} from './source.ts';

const MAX_PROBLEM_TEXT = 500;

/** Which states may follow which. */
const successors: Readonly<Record<SourceState, readonly SourceState[]>> = {
  connecting: ['synced', 'unreachable'],
  synced: ['unreachable'],
  unreachable: ['synced'],
};

/** The state machine that every source has: guarded, logged, told to the listener. */
export class SourceStateMachine {
  #status: SourceStatus;
  readonly #name: string;
  readonly #log: RegistryLog;
  #listener: SourceListener | undefined;

  constructor(name: string, log: RegistryLog) {
    this.#name = name;
    this.#log = log;
    this.#status = Object.freeze({
      state: 'connecting',
      since: Date.now(),
      confirmedAt: undefined,
      lastError: undefined,
      problems: Object.freeze([]),
    });
  }

  get status(): SourceStatus {
    return this.#status;
  }

  /** From now on changes are told; undefined ends that. */
  listen(listener: SourceListener | undefined): void {
    this.#listener = listener;
  }

  /** The registry answered; `problems` is all that is wrong in what it said. */
  confirmed(problems: readonly string[]): void {
    const now = Date.now();
    const told = bound(problems);
    const before = this.#status.problems;
    const changed = told.length !== before.length || told.some((text, i) => text !== before[i]);
    if (changed) {
      for (const problem of told)
        if (!before.includes(problem))
          this.#log.warn({ source: this.#name, problem }, 'registry content refused');
    }
    // An answer ends the failure before it: an old reason would be read as a present one.
    const fields = { confirmedAt: now, lastError: undefined, problems: changed ? told : before };
    this.#move('synced', fields, changed);
  }

  /** The registry cannot be asked. */
  unreachable(why: string): void {
    const lastError = clip(why);
    this.#move('unreachable', { lastError }, this.#status.lastError !== lastError);
  }

  #move(state: SourceState, fields: Partial<SourceStatus>, changed: boolean): void {
    const from = this.#status.state;
    if (from !== state && !successors[from].includes(state)) throw new RangeError(`${from} → ${state}`);
    const since = from === state ? this.#status.since : (fields.confirmedAt ?? Date.now());
    this.#status = Object.freeze({ ...this.#status, ...fields, state, since });
    if (from !== state) {
      const level = state === 'unreachable' ? 'warn' : 'info';
      const reason = state === 'unreachable' ? { reason: this.#status.lastError } : {};
      this.#log[level]({ source: this.#name, ...reason }, `registry ${from} → ${state}`);
    }
    if (from !== state || changed) this.#listener?.status(this.#status);
  }
}

function clip(text: string): string {
  return text.length <= MAX_PROBLEM_TEXT ? text : `${text.slice(0, MAX_PROBLEM_TEXT)}…`;
}

function bound(problems: readonly string[]): readonly string[] {
  if (problems.length <= MAX_PROBLEMS) return Object.freeze(problems.map(clip));
  const shown = problems.slice(0, MAX_PROBLEMS - 1).map(clip);
  return Object.freeze([...shown, `and ${problems.length - shown.length} more`]);
}
