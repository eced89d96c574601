import type { Log } from '../telemetry/log.ts';
import type { InterceptionDriver } from './interception-driver.ts';

/** New connections go direct while no worker serves, and are intercepted again as soon as one does. */
export class ServingWatch {
  readonly #interception: InterceptionDriver;
  readonly #log: Log;
  #timer: NodeJS.Timeout | undefined;

  constructor(interception: InterceptionDriver, log: Log) {
    this.#interception = interception;
    this.#log = log;
  }

  /** `patienceMs`: a worker that is replaced takes less; connections wait for it in the listener's queue meanwhile. */
  check(serving: number, patienceMs: number): void {
    if (serving > 0) {
      this.stop();
      void this.#interception.resume('nobody-serves');
      return;
    }
    this.#timer ??= setTimeout(() => {
      const { begun, suspensions } = this.#interception;
      if (begun && !suspensions.includes('nobody-serves'))
        this.#log.error('no worker serves: new connections go direct');
      void this.#interception.suspend('nobody-serves');
    }, patienceMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
