import type { InstanceId, ServiceName } from '../model/service.ts';
import type { EjectionRule } from './rule.ts';

/**
 * `healthy`: in use. `ejected`: set aside for a time. `trial`: the time is over and one connection may show whether
 * the instance is back. A plain return would cost `ejectAfter` callers a connect timeout each, every time; a trial
 * costs one, and the retry rule hides it.
 */
export const healthStates = ['healthy', 'ejected', 'trial'] as const;
export type HealthState = (typeof healthStates)[number];

/** Why an instance was set aside. `consecutive`: failures in a row. `probe`: the agent's own; only those bring it back. */
export type EjectionReason = 'consecutive' | 'success-rate' | 'latency' | 'probe';

/** What a caller's attempt was about: only reaching an instance, or its answer to a request. */
export type Proof = 'connection' | 'answer';

/** A change of state, for log and metrics. */
export interface HealthTransition {
  readonly service: ServiceName;
  readonly instance: InstanceId;
  readonly from: HealthState;
  readonly to: HealthState;
  /** Why it is, or was, set aside. */
  readonly reason: EjectionReason;
  /** End of the ejection, milliseconds of the given clock; only with `to: 'ejected'`, and not for `probe`. */
  readonly until: number | undefined;
}

const PREDECESSORS: Readonly<Record<HealthState, readonly HealthState[]>> = {
  healthy: ['ejected', 'trial'],
  ejected: ['healthy', 'trial'],
  trial: ['ejected'],
};

/** What this worker believes of one instance. Methods that may change the state answer whether they did. */
export class InstanceHealth {
  /** True while the one connection of a trial is undecided. */
  trialRunning = false;
  #state: HealthState = 'healthy';
  #reason: EjectionReason = 'consecutive';
  /** What it takes to come back from a trial: one that can be reached and answers badly is not well. */
  #proof: Proof = 'connection';
  #failures = 0;
  /** Those of them that were answers. */
  #badAnswers = 0;
  /** Ejections in a row. */
  #ejections = 0;
  #until = 0;
  #duration = 0;
  #epoch = 0;

  get state(): HealthState {
    return this.#state;
  }

  /** Why it was set aside last. */
  get reason(): EjectionReason {
    return this.#reason;
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

  /** Set aside by probes, for as long as they say. */
  get held(): boolean {
    return this.#state === 'ejected' && this.#reason === 'probe';
  }

  /** Reached: it works, whatever was believed, unless its answers are what is wrong with it. */
  reached(): boolean {
    this.#failures = this.#badAnswers;
    if (this.#state === 'healthy' || this.#proof === 'answer' || this.held) return false;
    return this.#recover();
  }

  /**
   * Answered as it should to a request of this epoch. One that is set aside stays so for its time; and one that could not be
   * reached may well answer on a connection that it has still.
   */
  answered(epoch: number): boolean {
    if (epoch !== this.#epoch) return false;
    this.#failures -= this.#badAnswers;
    this.#badAnswers = 0;
    return this.#state === 'trial' && this.#proof === 'answer' && this.#recover();
  }

  /** Not reached, or not answered as it should. `mayEject` is asked only when this failure would eject. */
  failed(proof: Proof, epoch: number, now: number, rule: EjectionRule, mayEject: () => boolean): boolean {
    if (epoch !== this.#epoch || this.#state === 'ejected') return false;
    this.#failures++;
    if (proof === 'answer') this.#badAnswers++;
    if (this.#state === 'healthy' && (this.#failures < rule.after || !mayEject())) return false;
    return this.eject('consecutive', this.#badAnswers > 0 ? 'answer' : this.#proof, now, rule);
  }

  /** Sets it aside, for longer each time in a row. `proof`: what it takes to come back. */
  eject(reason: EjectionReason, proof: Proof, now: number, rule: EjectionRule): boolean {
    if (this.#state === 'ejected') return false;
    // One that stayed well for as long as it was last set aside begins anew.
    if (this.#state === 'healthy' && now - this.#until >= this.#duration) this.#ejections = 0;
    this.#duration = Math.min(rule.base * rule.growth(this.#ejections), rule.longest);
    this.#ejections++;
    this.#reason = reason;
    this.#proof = proof;
    return this.#setAside(now + this.#duration);
  }

  /** Ends an ejection whose time is over. */
  expire(now: number): boolean {
    return this.#state === 'ejected' && now >= this.#until && this.#enter('trial');
  }

  /** Probes failed: only probes bring it back, whatever it was set aside for before. */
  probedDown(): boolean {
    this.#reason = 'probe';
    this.#proof = 'connection';
    if (this.#state !== 'ejected') return this.#setAside(Number.POSITIVE_INFINITY);
    this.#until = Number.POSITIVE_INFINITY;
    return false;
  }

  /** Probes succeed again. */
  probedUp(now: number): boolean {
    if (!this.held) return false;
    this.#until = now;
    this.#duration = 0;
    return this.#recover();
  }

  /** Nobody probes it any more: a caller may try. */
  release(now: number): boolean {
    if (!this.held) return false;
    this.#until = now;
    return this.expire(now);
  }

  #setAside(until: number): true {
    this.#until = until;
    this.#epoch++;
    this.trialRunning = false;
    return this.#enter('ejected');
  }

  #recover(): true {
    this.#failures = 0;
    this.#badAnswers = 0;
    this.#proof = 'connection';
    this.trialRunning = false;
    return this.#enter('healthy');
  }

  #enter(to: HealthState): true {
    if (!PREDECESSORS[to].includes(this.#state)) {
      throw new RangeError(`instance health cannot go from ${this.#state} to ${to}`);
    }
    this.#state = to;
    return true;
  }
}
