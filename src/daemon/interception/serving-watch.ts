import type { Log } from '../../telemetry/log.ts';
import type { InterceptionDriver } from './interception-driver.ts';

/**
 * New connections go direct while no worker serves, or while none of those that serve gives a sign of life, and are
 * intercepted again as soon as one does.
 */
export class ServingWatch {
  readonly #interception: Pick<InterceptionDriver, 'begun' | 'suspensions' | 'suspend' | 'resume'>;
  readonly #log: Pick<Log, 'error'>;
  #timer: NodeJS.Timeout | undefined;
  /** Workers serve as far as is known, but all of them are silent. */
  #silent = false;

  constructor(
    interception: Pick<InterceptionDriver, 'begun' | 'suspensions' | 'suspend' | 'resume'>,
    log: Pick<Log, 'error'>,
  ) {
    this.#interception = interception;
    this.#log = log;
  }

  /** `patienceMs`: a worker that is replaced takes less; connections wait for it in the listener's queue meanwhile. */
  check(serving: number, patienceMs: number): void {
    if (serving > 0) {
      this.stop();
      if (!this.#silent) void this.#interception.resume('nobody-serves');
      return;
    }
    this.#silent = false;
    this.#timer ??= setTimeout(() => this.#suspend('no worker serves'), patienceMs);
  }

  /** `silentMs`: how long none of those that serve has given a sign of life; undefined when none serves. */
  beat(silentMs: number | undefined, patienceMs: number): void {
    if (silentMs === undefined) return; // `check` knows
    const silent = silentMs > patienceMs;
    if (silent === this.#silent) return;
    this.#silent = silent;
    if (silent) this.#suspend('no worker gives a sign of life');
    else void this.#interception.resume('nobody-serves');
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #suspend(why: string): void {
    const { begun, suspensions } = this.#interception;
    if (begun && !suspensions.includes('nobody-serves')) this.#log.error(`${why}: new connections go direct`);
    void this.#interception.suspend('nobody-serves');
  }
}
