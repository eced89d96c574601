import { Socket } from 'node:net';
import { join } from 'node:path';
import { connectUnix } from '../../io/unix-socket.ts';

/** How often a worker without a supervisor looks for one; a worker that drains anyway is in no hurry. */
const SERVING_PAUSE_MS = 50;
const DRAINING_PAUSE_MS = 500;

/** Where workers find a supervisor that did not start them. */
export function workersSocket(runtimeDirectory: string): string {
  return join(runtimeDirectory, 'workers.sock');
}

/** Looks for the next supervisor on behalf of a worker that lost its own. */
export class SupervisorSearch {
  readonly #onFound: (socket: Socket) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(onFound: (socket: Socket) => void) {
    this.#onFound = onFound;
  }

  /** Until it is found, or told to stop. A second call changes the pace. */
  start(runtimeDirectory: string, draining: boolean): void {
    this.stop();
    const path = workersSocket(runtimeDirectory);
    this.#timer = setInterval(
      () => {
        // Of this process's own user: nobody else may tell a worker what to do.
        const fd = connectUnix(path, process.geteuid!());
        if (fd === undefined) return;
        this.stop();
        this.#onFound(new Socket({ fd, readable: true, writable: true }));
      },
      draining ? DRAINING_PAUSE_MS : SERVING_PAUSE_MS,
    );
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
