import type { ServicePolicy } from '../model/policy.ts';
import type { Instance, InstanceId, Service, ServiceName } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';
import { type EjectionSettings, type HealthState, type HealthTransition, InstanceHealth } from './health.ts';
import { buildPicker, type Candidate, type Locality, type Picker } from './picker.ts';

/** Services looked at for removal with each new snapshot: all in turn, and never a long pause. */
const SWEEP_BATCH = 64;

/** What a balancer is given. */
interface BalancerOptions {
  readonly locality: Locality;
  readonly ejection: EjectionSettings;
  /** What operators say of a service; the same object for as long as it is in use. Absent: nothing. */
  readonly policy?: (service: ServiceName) => ServicePolicy;
  /** Told of every change of an instance's health. */
  readonly onTransition?: (transition: HealthTransition) => void;
  /** Milliseconds, never going back. */
  readonly now?: () => number;
  /** From 0 up to 1. */
  readonly random?: () => number;
}

/** One connection to one instance, from the attempt to the end. */
export interface PickToken {
  /** The instance was reached. */
  connected(): void;
  /** It was not, and it is to blame. */
  failed(): void;
  /** A request was answered with this status, after so many milliseconds; 0: it was never answered. */
  answered(status: number, milliseconds: number): void;
  /** The connection is over. Further calls do nothing. */
  finished(): void;
}

/** What is shown of an instance. */
interface InstanceView {
  readonly id: InstanceId;
  readonly state: HealthState;
  readonly failures: number;
  readonly active: number;
  /** End of the ejection in milliseconds of the balancer's clock. */
  readonly until: number | undefined;
}

/** Everything about one service that outlives a snapshot. */
interface Entry {
  service: Service;
  /** Of the instances in `service`, and of no others. */
  readonly health: Map<InstanceId, InstanceHealth>;
  /** Undefined when something changed: the next pick builds another. */
  picker: Picker | undefined;
  /** When the first ejection ends. */
  nextReturn: number;
}

interface Outcomes {
  succeeded(entry: Entry, instance: Instance, health: InstanceHealth): void;
  failed(entry: Entry, instance: Instance, health: InstanceHealth, epoch: number): void;
  trialChanged(entry: Entry): void;
}

/** Counts one connection while it lives; the first outcome is the one that counts. */
class Token implements PickToken {
  readonly #outcomes: Outcomes;
  readonly #entry: Entry;
  readonly #instance: Instance;
  readonly #health: InstanceHealth;
  readonly #epoch: number;
  readonly #trial: boolean;
  #decided = false;
  #finished = false;

  constructor(outcomes: Outcomes, entry: Entry, instance: Instance, health: InstanceHealth) {
    this.#outcomes = outcomes;
    this.#entry = entry;
    this.#instance = instance;
    this.#health = health;
    this.#epoch = health.epoch;
    this.#trial = health.state === 'trial' && !health.trialRunning;
    if (this.#trial) {
      health.trialRunning = true;
      outcomes.trialChanged(entry);
    }
    health.active++;
  }

  connected(): void {
    if (this.#decided || this.#finished) return;
    this.#decided = true;
    this.#outcomes.succeeded(this.#entry, this.#instance, this.#health);
  }

  failed(): void {
    if (this.#decided || this.#finished) return;
    this.#decided = true;
    this.#outcomes.failed(this.#entry, this.#instance, this.#health, this.#epoch);
  }

  answered(_status: number, _milliseconds: number): void {}

  finished(): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#health.active--;
    // The caller went away before the trial showed anything: the next connection may try.
    if (this.#trial && !this.#decided && this.#health.epoch === this.#epoch) {
      this.#health.trialRunning = false;
      this.#outcomes.trialChanged(this.#entry);
    }
  }
}

/** For an instance that was deregistered between its pick and its use. */
const FORGOTTEN: PickToken = { connected() {}, failed() {}, answered() {}, finished() {} };

/** Picks instances, and remembers how they did. One for each worker. */
export class Balancer {
  readonly #entries = new Map<ServiceName, Entry>();
  readonly #now: () => number;
  readonly #random: () => number;
  readonly #onTransition: (transition: HealthTransition) => void;
  #locality: Locality;
  #ejection: EjectionSettings;
  #snapshot: Snapshot | undefined;
  #sweep = this.#entries.values();
  /** What tokens report to; one object for all of them. */
  readonly #outcomes: Outcomes = {
    succeeded: (entry, instance, health) => {
      if (health.state === 'healthy') health.succeeded();
      else this.#move(entry, instance, health, () => health.succeeded());
    },
    failed: (entry, instance, health, epoch) => {
      const mayEject = () => this.#mayEject(entry);
      this.#move(entry, instance, health, () => health.failed(epoch, this.#now(), this.#ejection, mayEject));
    },
    trialChanged: (entry) => {
      entry.picker = undefined;
    },
  };

  constructor(options: BalancerOptions) {
    this.#locality = options.locality;
    this.#ejection = options.ejection;
    this.#now = options.now ?? (() => performance.now());
    this.#random = options.random ?? Math.random;
    this.#onTransition = options.onTransition ?? (() => {});
  }

  /**
   * The newest snapshot: picks are made from it, whichever older one a connection was routed by, because a
   * deregistered instance must get nothing new. Services that are gone are forgotten, some with each call.
   */
  use(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    for (let i = 0; i < SWEEP_BATCH; i++) {
      const { value: entry, done } = this.#sweep.next();
      if (done) {
        this.#sweep = this.#entries.values();
        return;
      }
      if (!snapshot.services.has(entry.service.name)) this.#entries.delete(entry.service.name);
    }
  }

  /** Another configuration; what is known of the instances stays. */
  configure(options: Pick<BalancerOptions, 'locality' | 'ejection'>): void {
    this.#locality = options.locality;
    this.#ejection = options.ejection;
    for (const entry of this.#entries.values()) entry.picker = undefined;
  }

  /** Policies have changed; what is known of the instances stays. */
  usePolicies(): void {
    for (const entry of this.#entries.values()) entry.picker = undefined;
  }

  /** An instance for a new connection, none of the excluded (compared by id); undefined when there is none. */
  pick(service: Service, exclude: ReadonlySet<Instance>): Instance | undefined {
    const entry = this.#entry(service);
    if (entry === undefined) return undefined;
    if (entry.nextReturn !== Number.POSITIVE_INFINITY && entry.nextReturn <= this.#now()) this.#expire(entry);
    entry.picker ??= this.#build(entry);
    return entry.picker.pick(exclude);
  }

  /** Called for every attempt, whether the instance came from `pick` or was named by its address. */
  started(service: Service, instance: Instance): PickToken {
    const entry = this.#entry(service);
    const health = entry?.health.get(instance.id);
    // Gone in the meantime: nothing is remembered of it.
    if (entry === undefined || health === undefined) return FORGOTTEN;
    return new Token(this.#outcomes, entry, instance, health);
  }

  /** What is known of a service's instances; for people. */
  view(service: ServiceName): readonly InstanceView[] {
    const entry = this.#entries.get(service);
    return Array.from(entry?.health ?? [], ([id, { state, failures, active, until }]) => ({
      id,
      state,
      failures,
      active,
      until: state === 'ejected' ? until : undefined,
    }));
  }

  /** The entry of a service as the newest snapshot has it; undefined when that has it no more. */
  #entry(service: Service): Entry | undefined {
    const current = this.#snapshot === undefined ? service : this.#snapshot.services.get(service.name);
    if (current === undefined) return undefined;
    let entry = this.#entries.get(current.name);
    if (entry === undefined) {
      entry = {
        service: current,
        health: new Map(),
        picker: undefined,
        nextReturn: Number.POSITIVE_INFINITY,
      };
      this.#entries.set(current.name, entry);
    } else if (entry.service === current) return entry;
    this.#reconcile(entry, current);
    return entry;
  }

  /** Health stays with the instances that stayed. */
  #reconcile(entry: Entry, service: Service): void {
    const ids = new Set(service.instances.map(({ id }) => id));
    for (const id of entry.health.keys()) if (!ids.has(id)) entry.health.delete(id);
    for (const id of ids) if (!entry.health.has(id)) entry.health.set(id, new InstanceHealth());
    entry.service = service;
    entry.picker = undefined;
  }

  #build(entry: Entry): Picker {
    const present = entry.service.instances
      .filter(({ draining }) => !draining)
      .map((instance): Candidate => ({ instance, health: entry.health.get(instance.id)! }));
    const usable = present.filter(({ health }) => health.usable);
    // Panic: when all seem dead the fault is more likely ours, and trying costs nothing more.
    const candidates = usable.length > 0 ? usable : present;
    return buildPicker(entry.service.balance, candidates, this.#locality, this.#random);
  }

  /** Whether one more instance may be set aside. Those on trial are still out. */
  #mayEject(entry: Entry): boolean {
    let present = 0;
    let out = 0;
    for (const { id, draining } of entry.service.instances) {
      if (draining) continue;
      present++;
      if (entry.health.get(id)!.state !== 'healthy') out++;
    }
    return (out + 1) * 100 <= present * this.#ejection.maxEjectedPercent;
  }

  #expire(entry: Entry): void {
    const now = this.#now();
    entry.nextReturn = Number.POSITIVE_INFINITY;
    for (const instance of entry.service.instances) {
      const health = entry.health.get(instance.id)!;
      this.#move(entry, instance, health, () => health.expire(now));
      if (health.state === 'ejected') entry.nextReturn = Math.min(entry.nextReturn, health.until);
    }
  }

  /** Every change of health passes here: it makes the picker stale and is told to the listener. */
  #move(entry: Entry, instance: Instance, health: InstanceHealth, change: () => boolean): void {
    const from = health.state;
    if (!change() || entry.health.get(instance.id) !== health) return; // or it was deregistered meanwhile
    const to = health.state;
    entry.picker = undefined;
    const until = to === 'ejected' ? health.until : undefined;
    if (until !== undefined) entry.nextReturn = Math.min(entry.nextReturn, until);
    this.#onTransition({ service: entry.service.name, instance: instance.id, from, to, until });
  }
}
