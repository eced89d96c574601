import { Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { closeDescriptor } from '../../io/descriptors.ts';
import type { Poller } from '../../io/poller.ts';
import { UnixListener } from '../../io/unix-socket.ts';
import type { Log } from '../../telemetry/log.ts';
import { ControlChannel } from '../control/channel.ts';
import { fromWorker } from '../control/from-worker.ts';
import type { ToSupervisor, ToWorker } from '../control/messages.ts';
import { type RosterEntry, stillRuns } from '../workers/roster.ts';
import type { WorkerLink } from '../workers/worker-process.ts';
import type { WorkerHello } from './hello.ts';
import { workersSocket } from './supervisor-search.ts';

/** Connections that have not said who they are; more are closed at once. */
const MOST_STRANGERS = 64;
/** How long one may take to say it. */
const HELLO_MS = 2_000;
/** How often it is looked whether those who are expected still run. */
const LOOK_MS = 10;

/** A worker that lost its supervisor and came here. */
export interface Arrival {
  /** As the kernel says. */
  readonly pid: number;
  readonly hello: WorkerHello;
  readonly link: WorkerLink;
}

/** Where workers come that another supervisor started. */
export class Reception {
  readonly #listener: UnixListener;
  readonly #log: Log;
  readonly #strangers = new Set<Socket>();
  readonly #waiting: Arrival[] = [];
  #onArrival: ((arrival: Arrival) => void) | undefined;

  /** Throws a MeshError when the socket cannot be made. */
  constructor(poller: Poller, runtimeDirectory: string, log: Log) {
    this.#log = log;
    this.#listener = new UnixListener(poller, workersSocket(runtimeDirectory), (fd, pid) =>
      this.#connected(fd, pid),
    );
  }

  /**
   * Waits until everybody who is expected has come or ended, at most this long. Those who run and did not come are
   * `silent`; what came besides is among the arrivals, too.
   */
  async gather(
    expected: readonly RosterEntry[],
    timeoutMs: number,
  ): Promise<{ readonly arrivals: readonly Arrival[]; readonly silent: readonly RosterEntry[] }> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const silent = expected.filter(
        (entry) => !this.#waiting.some(({ pid }) => pid === entry.pid) && stillRuns(entry),
      );
      if (silent.length === 0 || performance.now() > deadline)
        return { arrivals: this.#waiting.splice(0), silent };
      await pause(LOOK_MS);
    }
  }

  /** From now on everybody who comes is handed on at once, those who wait first. */
  follow(onArrival: (arrival: Arrival) => void): void {
    this.#onArrival = onArrival;
    for (const arrival of this.#waiting.splice(0)) onArrival(arrival);
  }

  close(): void {
    this.#listener.close();
    for (const socket of this.#strangers) socket.destroy();
  }

  #connected(fd: number, pid: number): void {
    if (this.#strangers.size >= MOST_STRANGERS) {
      closeDescriptor(fd);
      return;
    }
    const socket = new Socket({ fd, readable: true, writable: true });
    this.#strangers.add(socket);
    const link: WorkerLink = new ControlChannel<ToWorker, ToSupervisor>(
      socket,
      fromWorker,
      (message) => {
        known();
        if (message.t !== 'hello') socket.destroy();
        else this.#arrived({ pid, hello: message.hello, link });
      },
      () => known(),
    );
    const timer = setTimeout(() => socket.destroy(), HELLO_MS);
    const known = (): void => {
      clearTimeout(timer);
      this.#strangers.delete(socket);
    };
  }

  #arrived(arrival: Arrival): void {
    const { pid, hello, link } = arrival;
    link.strict = false; // it may be of another version
    this.#log.info({ pid, build: hello.build, draining: hello.draining }, 'worker: came by itself');
    if (this.#onArrival !== undefined) {
      this.#onArrival(arrival);
      return;
    }
    // Until it is decided about, a worker that ends or says something again is simply not there any more.
    const gone = (): void => {
      const at = this.#waiting.indexOf(arrival);
      if (at >= 0) this.#waiting.splice(at, 1);
    };
    link.handTo(() => {}, gone);
    this.#waiting.push(arrival);
  }
}
