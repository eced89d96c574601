import { MeshError } from '../model/errors.ts';

/** Operations that may wait for their turn; the daemon never has more than a handful. */
const MAX_WAITING = 64;

/** Runs operations one after the other, in the order in which they came: never two restores at once. */
export class SerialQueue {
  #tail: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  /** Runs an operation when all earlier ones are over. Rejects with a MeshError `overload` when too many wait. */
  run<T>(operation: () => Promise<T>): Promise<T> {
    if (this.#waiting >= MAX_WAITING) {
      const message = `${MAX_WAITING} changes of the rules wait already`;
      return Promise.reject(new MeshError('overload', 'agent', message, { retry: 'safe' }));
    }
    this.#waiting++;
    const turn = this.#tail.then(operation).finally(() => {
      this.#waiting--;
    });
    this.#tail = turn.catch(() => undefined);
    return turn;
  }
}
