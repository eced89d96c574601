import type { Config } from '../../config/schema.ts';
import { countDescriptors, countedDescriptors, descriptorLimit } from '../../io/descriptors.ts';
import { monotonicMs } from '../../io/monotonic.ts';
import type { ConnectionRecord } from '../../model/connection.ts';

/** How one worker is, over the time since it last said so. */
export interface Vitals {
  /** When it was measured: milliseconds of the host's monotonic clock, the same in all processes. */
  readonly at: number;
  /** The most that the event loop was late, in milliseconds. */
  readonly delayMs: number;
  /** Descriptors that are open, and that may be. */
  readonly descriptors: number;
  readonly descriptorLimit: number;
  /** Intercepted connections that came. */
  readonly taken: number;
  /** Connections that failed by the agent's own fault ({@link isOwnFault}). */
  readonly failed: number;
}

/** The loop is asked to turn this often; a pause of it is seen to this much. */
const BEAT_MS = 100;
/** Beats from one measurement to the next. With the guard's own pace it bounds how soon a shortage is known. */
const BEATS = 2;
/** Where the kernel keeps no count, they are counted this often. */
const COUNT_MS = 1000;

/** What a worker counts for its vitals beside what is measured. */
export class VitalCounts {
  /** Intercepted connections that came, since the start. */
  taken = 0;
  /** Those that failed by the agent's own fault, since the start. */
  failed = 0;

  ended(record: ConnectionRecord): void {
    if (isOwnFault(record)) this.failed++;
  }
}

/**
 * True for a connection that failed because this agent or its host is short of something: descriptors, ports, memory.
 * A connection refused at a limit has no path and is counted where it is refused: one greedy caller at its own limit,
 * or a scan of the capture port, must not be able to switch the mesh off for everybody.
 */
export function isOwnFault({ direction, path, reason }: ConnectionRecord): boolean {
  if (direction !== 'outbound') return false;
  if (reason === 'system') return true;
  return reason === 'overload' && (path === 'passthrough' || path === 'direct' || path === 'local');
}

/** Measures this process, and tells. Costs ten turns of the loop a second. */
export class VitalSigns {
  readonly #counts: VitalCounts;
  readonly #tell: (vitals: Vitals) => void;
  readonly #timer: NodeJS.Timeout;
  readonly #descriptors = new Descriptors();
  #due: number;
  #beats = 0;
  #delayMs = 0;
  #taken = 0;
  #failed = 0;

  constructor(counts: VitalCounts, tell: (vitals: Vitals) => void) {
    this.#counts = counts;
    this.#tell = tell;
    this.#due = monotonicMs() + BEAT_MS;
    this.#timer = setInterval(() => this.#beat(), BEAT_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #beat(): void {
    const now = monotonicMs();
    const late = now - this.#due;
    this.#due = now + BEAT_MS;
    if (late > this.#delayMs) this.#delayMs = late;
    this.#beats++;
    if (this.#beats < BEATS && late < BEAT_MS) return;
    const { taken, failed } = this.#counts;
    this.#tell({
      at: now,
      delayMs: Math.max(0, this.#delayMs),
      ...this.#descriptors.measure(now),
      taken: taken - this.#taken,
      failed: failed - this.#failed,
    });
    this.#taken = taken;
    this.#failed = failed;
    this.#delayMs = 0;
    this.#beats = 0;
  }
}

/** Descriptors of this process, at a cost that does not grow with them. */
class Descriptors {
  #counted = 0;
  #countedAt = Number.NEGATIVE_INFINITY;

  measure(now: number): Pick<Vitals, 'descriptors' | 'descriptorLimit'> {
    const limit = descriptorLimit();
    return { descriptors: countedDescriptors() ?? this.#count(now, limit), descriptorLimit: limit };
  }

  #count(now: number, limit: number): number {
    if (now - this.#countedAt < COUNT_MS) return this.#counted;
    this.#countedAt = now;
    try {
      this.#counted = countDescriptors();
    } catch {
      this.#counted = limit; // it takes a descriptor to count them, and there is none left
    }
    return this.#counted;
  }
}

/** While it is out, figures have to be this far below their bounds, so that nothing goes back and forth around them. */
export const CALM_SHARE = 0.9;

/** Whether a worker is short of descriptors; `some` between the bound and well below it. */
export function descriptorShortage(
  { descriptors, descriptorLimit }: Vitals,
  { maxDescriptorsPercent }: Pick<Config['guard'], 'maxDescriptorsPercent'>,
): 'none' | 'some' | 'short' {
  const share = (100 * descriptors) / descriptorLimit;
  if (share >= maxDescriptorsPercent) return 'short';
  return share >= maxDescriptorsPercent * CALM_SHARE ? 'some' : 'none';
}

/** True for what a worker may say of itself: a worker that was taken over must not be able to confuse the supervisor. */
export function areVitals(value: unknown): value is Vitals {
  if (typeof value !== 'object' || value === null) return false;
  const { at, delayMs, descriptors, descriptorLimit, taken, failed } = value as Partial<Vitals>;
  return [at, delayMs, descriptors, descriptorLimit, taken, failed].every(
    (one) => typeof one === 'number' && one >= 0 && Number.isFinite(one),
  );
}
