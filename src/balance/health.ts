import type { InstanceId, ServiceName } from '../model/service.ts';

/**
 * `healthy`: in use. `ejected`: set aside for a time. `trial`: the time is over and one connection may show whether
 * the instance is back. A plain return would cost `ejectAfter` callers a connect timeout each, every time; a trial
 * costs one, and the retry rule hides it.
 */
export type HealthState = 'healthy' | 'ejected' | 'trial';

/** Settings of outlier ejection: `balance` of the configuration. Times in milliseconds. */
export interface EjectionSettings {
  readonly ejectAfter: number;
  readonly ejectBase: number;
  readonly ejectMax: number;
  readonly maxEjectedPercent: number;
}

/** A change of state, for log and metrics. */
export interface HealthTransition {
  readonly service: ServiceName;
  readonly instance: InstanceId;
  readonly from: HealthState;
  readonly to: HealthState;
  /** End of the ejection, milliseconds of the given clock; only with `to: 'ejected'`. */
  readonly until: number | undefined;
}

const PREDECESSORS: Readonly<Record<HealthState, readonly HealthState[]>> = {
  healthy: ['ejected', 'trial'],
  ejected: ['healthy', 'trial'],
  trial: ['ejected'],
};

/** What this worker has seen of one instance. */
export class InstanceHealth {
  /** Connections that are open or being opened. */
  active = 0;
  /** True while the one connection of a trial is undecided. */
  trialRunning = false;
  #state: HealthState = 'healthy';
  #failures = 0;
  /** Ejections in a row. */
  #ejections = 0;
  #until = 0;
  #duration = 0;
  #epoch = 0;

  get state(): HealthState {
    return this.#state;
  }

  /** End of the ejection. */
  get until(): number {
    return this.#until;
  }

  /** Failures in a row. */
  get failures(): number {
    return this.#failures;
  }

  /** Grows with each ejection; a failure that began in an older epoch was known already and counts no more. */
  get epoch(): number {
    return this.#epoch;
  }

  /** True when the instance may be picked, apart from panic. */
  get usable(): boolean {
    return this.#state === 'healthy' || (this.#state === 'trial' && !this.trialRunning);
  }

  /** Reached: whatever was believed before, it works. True when that changed the state. */
  succeeded(): boolean {
    this.#failures = 0;
    this.trialRunning = false;
    return this.#state !== 'healthy' && this.#enter('healthy');
  }

  /**
   * Not reached. `mayEject` is asked only when this failure would eject. True when it did.
   */
  failed(epoch: number, now: number, settings: EjectionSettings, mayEject: () => boolean): boolean {
    if (epoch !== this.#epoch || this.#state === 'ejected') return false;
    this.#failures++;
    if (this.#state === 'healthy' && (this.#failures < settings.ejectAfter || !mayEject())) return false;
    // One that stayed well for as long as it was last set aside begins anew.
    if (this.#state === 'healthy' && now - this.#until >= this.#duration) this.#ejections = 0;
    this.#duration = Math.min(settings.ejectBase * 2 ** this.#ejections, settings.ejectMax);
    this.#ejections++;
    this.#until = now + this.#duration;
    this.#epoch++;
    this.trialRunning = false;
    return this.#enter('ejected');
  }

  /** Ends an ejection whose time is over. True when that changed the state. */
  expire(now: number): boolean {
    return this.#state === 'ejected' && now >= this.#until && this.#enter('trial');
  }

  #enter(to: HealthState): true {
    if (!PREDECESSORS[to].includes(this.#state)) {
      throw new RangeError(`instance health cannot go from ${this.#state} to ${to}`);
    }
    this.#state = to;
    return true;
  }
}
