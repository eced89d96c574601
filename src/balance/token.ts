import type { InstanceRecord } from './instance-record.ts';

/** One connection to one instance, or one request to it, from the attempt to the end. */
export interface PickToken {
  /** The instance was reached. */
  connected(): void;
  /** It was not, and it is to blame. */
  failed(): void;
  /** A request was answered with this status, after so many milliseconds; 0: it was never answered. */
  answered(status: number, milliseconds: number): void;
  /** The connection is over. Further calls do nothing. */
  finished(): void;
}

/** What tokens report to. */
export interface Outcomes {
  /** Requests are answered; else being reached is the answer. */
  readonly answers: boolean;
  /** `began`: on the clock, where delays are measured. */
  connected(record: InstanceRecord, began: number): void;
  failed(record: InstanceRecord, epoch: number): void;
  answered(record: InstanceRecord, epoch: number, status: number, milliseconds: number): void;
  trialChanged(): void;
}

/** Began at no time that matters: nobody asks for delays. */
export const UNTIMED = -1;

/** For an instance that was deregistered between its pick and its use, and for probes: nothing is remembered. */
export const UNCOUNTED: PickToken = { connected() {}, failed() {}, answered() {}, finished() {} };

/** Counts one connection while it lives; the first outcome of the attempt and the first answer are those that count. */
export class Token implements PickToken {
  readonly #outcomes: Outcomes;
  readonly #record: InstanceRecord;
  readonly #epoch: number;
  readonly #trial: boolean;
  readonly #began: number;
  #decided = false;
  #answered = false;
  #waits = false;
  #finished = false;

  constructor(outcomes: Outcomes, record: InstanceRecord, began: number) {
    const { health } = record;
    this.#outcomes = outcomes;
    this.#record = record;
    this.#epoch = health.epoch;
    this.#began = began;
    this.#trial = health.state === 'trial' && !health.trialRunning;
    if (this.#trial) {
      health.trialRunning = true;
      outcomes.trialChanged();
    }
    record.active++;
    if (began === UNTIMED) return;
    this.#waits = true;
    record.latency.asked(began);
  }

  connected(): void {
    if (this.#decided || this.#finished) return;
    this.#decided = true;
    if (!this.#outcomes.answers) this.#left();
    this.#outcomes.connected(this.#record, this.#began);
  }

  failed(): void {
    if (this.#decided || this.#finished) return;
    this.#decided = true;
    this.#answered = true;
    this.#left();
    this.#outcomes.failed(this.#record, this.#epoch);
  }

  answered(status: number, milliseconds: number): void {
    if (this.#answered || this.#finished) return;
    this.#answered = true;
    this.#left();
    this.#outcomes.answered(this.#record, this.#epoch, status, milliseconds);
  }

  finished(): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#left();
    const { health } = this.#record;
    this.#record.active--;
    // The caller went away before the trial showed anything: the next connection may try.
    if (this.#trial && health.state === 'trial' && health.epoch === this.#epoch) {
      health.trialRunning = false;
      this.#outcomes.trialChanged();
    }
  }

  /** Nothing is waited for any more. */
  #left(): void {
    if (!this.#waits) return;
    this.#waits = false;
    this.#record.latency.left();
  }
}
