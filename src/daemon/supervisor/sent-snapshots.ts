import type { Snapshot } from '../../model/snapshot.ts';

/** Snapshots that wait for their acknowledgement; beyond it the oldest ones are passed over for newer ones. */
const MOST_WAITING = 256;

/**
 * Which snapshot every worker routes by. Under constant change the newest one is never acknowledged, so those on
 * their way are remembered.
 */
export class SentSnapshots {
  #waiting: Snapshot[] = [];

  sent(snapshot: Snapshot): void {
    if (this.#waiting.at(-1) === snapshot) return;
    this.#waiting.push(snapshot);
    if (this.#waiting.length > MOST_WAITING) this.#waiting.shift();
  }

  /** The newest snapshot that this version covers, once; undefined when there is no news. */
  acknowledged(version: number): Snapshot | undefined {
    let newest: Snapshot | undefined;
    while (this.#waiting.length > 0 && this.#waiting[0]!.version <= version) newest = this.#waiting.shift();
    return newest;
  }

  /** Another catalogue begins, with versions of its own. */
  clear(): void {
    this.#waiting = [];
  }
}
