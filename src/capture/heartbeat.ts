import { join } from 'node:path';
import { DatagramBeacon, LifeFile } from '../io/sign-of-life.ts';
import type { Ip } from '../model/address.ts';
import { reasonOf } from '../model/errors.ts';

/**
 * Pause between two signs of life: a third of the shortest `capture.deadAfter`. So two may be late before the kernel
 * passes the workers by.
 */
const BEAT_MS = 333;

/** Name of the file in `daemon.runtimeDirectory` that says when a worker last served; systemd/withdraw-rules reads it. */
const ALIVE_FILE = 'alive';

const LOOPBACK = ['127.0.0.1', '::1'] as Ip[];

/**
 * One sign of life for the workers, given by whoever knows that they serve: rules that were just put in have heard none yet,
 * and would pass everybody by until the next beat.
 */
export function vouchForWorkers(port: number): void {
  for (const ip of LOOPBACK) {
    const beacon = DatagramBeacon.open(ip, port);
    beacon?.send();
    beacon?.close();
  }
}

interface HeartbeatOptions {
  /** `capture.port`: the rules watch for datagrams to it. */
  readonly port: number;
  /** `daemon.runtimeDirectory`. */
  readonly runtimeDirectory: string;
  /** The file cannot be made or kept. */
  onFailure(reason: string): void;
}

/**
 * The signs of life of a worker that takes new connections, given from its own event loop: datagrams that a rule notes
 * in the kernel (nothing is redirected while there are none), and a file with a lock for a shell that has to know
 * whether somebody still serves. A worker that is stopped, dead or stuck gives none.
 */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  #beacons: readonly DatagramBeacon[] = [];
  #file: LifeFile | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
  }

  /** Gives the first sign now, and more until `stop`. */
  start(): void {
    if (this.#timer !== undefined) return;
    const { port, runtimeDirectory, onFailure } = this.#options;
    this.#beacons = LOOPBACK.flatMap((ip) => DatagramBeacon.open(ip, port) ?? []);
    try {
      this.#file = new LifeFile(join(runtimeDirectory, ALIVE_FILE));
    } catch (error) {
      onFailure(reasonOf(error));
    }
    this.#timer = setInterval(() => this.#beat(), BEAT_MS).unref();
    this.#beat();
  }

  /** From now on this worker counts as gone; safe to repeat. */
  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    for (const beacon of this.#beacons) beacon.close();
    this.#beacons = [];
    this.#file?.close();
    this.#file = undefined;
  }

  #beat(): void {
    for (const beacon of this.#beacons) beacon.send();
    this.#file?.touch();
  }
}
