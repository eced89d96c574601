import { type FallbackEntry, type FallbackLocality, FallbackPlanner } from '../../capture/rules/fallback.ts';
import type { Snapshot } from '../../model/snapshot.ts';
import type { Log } from '../../telemetry/log.ts';

/**
 * Least time (ms) between two changes of where virtual addresses lead without redirection: they may be thousands of rules,
 * and a catalogue may change many times a second.
 */
const INTERVAL_MS = 1_000;

/** Where virtual addresses lead without redirection, taken from the newest snapshot now and then. */
export class FallbackCache {
  readonly #due: () => void;
  readonly #log: Pick<Log, 'warn'>;
  #planner: FallbackPlanner;
  #takenAt = Number.NEGATIVE_INFINITY;
  #entries: readonly FallbackEntry[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** Some services found no room, and it was said. */
  #full = false;

  /** `due` is called when it is time to ask again. */
  constructor(where: FallbackLocality, log: Pick<Log, 'warn'>, due: () => void) {
    this.#planner = new FallbackPlanner(where);
    this.#log = log;
    this.#due = due;
  }

  /** Services that found no room. */
  get left(): number {
    return this.#planner.left;
  }

  configure(where: FallbackLocality): void {
    this.#planner = new FallbackPlanner(where);
    this.#takenAt = Number.NEGATIVE_INFINITY;
  }

  /** Those of this snapshot, or of an earlier one and then anew soon. The same value while nothing changed. */
  of(snapshot: Snapshot): readonly FallbackEntry[] {
    this.#planner.update(snapshot);
    const { entries, left } = this.#planner;
    if (left > 0 && !this.#full) {
      const message = 'too many virtual addresses: without the agent the last ones by name are refused';
      this.#log.warn({ left, kept: entries.length }, message);
    }
    this.#full = left > 0;
    if (entries === this.#entries) return entries;
    const wait = this.#takenAt + INTERVAL_MS - performance.now();
    if (wait > 0) {
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined;
        this.#due();
      }, wait);
      return this.#entries;
    }
    this.#entries = entries;
    this.#takenAt = performance.now();
    return entries;
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
