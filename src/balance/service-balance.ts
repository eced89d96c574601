import type { Subset } from '../model/policy.ts';
import type { Instance, InstanceId, Service, ServiceName } from '../model/service.ts';
import type { HealthState, HealthTransition } from './health.ts';
import type { InstanceRecord } from './instance-record.ts';
import { InstanceRecords } from './instance-records.ts';
import { type InstanceView, viewOf } from './instance-view.ts';
import type { Locality } from './locality.ts';
import { findOutliers } from './outliers.ts';
import { PickerCache, type PickerSlot } from './picker-cache.ts';
import type { Picker } from './pickers/picker.ts';
import type { BalanceRule } from './rule.ts';
import { planOf, servicePicker } from './service-picker.ts';
import { type Outcomes, type PickToken, Token, UNCOUNTED, UNTIMED } from './token.ts';

/** Steps in which the share of an instance grows in slow start. */
const SLOW_STEPS = 20;
/** How often it is told that a service which is to be probed is in use. */
const USE_TOLD_MS = 1000;
/** From here on a status is the instance's failure. */
const FIRST_FAILURE = 500;
/** It has too much to do: no failure, but no reason to send it more. */
const TOO_MANY_REQUESTS = 429;

/** What is asked of the balancer. */
export interface ServiceBalanceDependencies {
  readonly now: () => number;
  readonly random: () => number;
  locality(): Locality;
  onTransition(transition: HealthTransition): void;
  /** It is not registered any more, and was not healthy. */
  onForgotten(service: ServiceName, instance: InstanceId): void;
  /** A service that is to be probed is in use. */
  onUse(service: Service): void;
}

/** Everything about one service that outlives a snapshot: how its instances do, and who is picked. */
export class ServiceBalance implements Outcomes {
  /** Of the rule; its owner's, to know when to configure. */
  generation = 0;
  readonly #deps: ServiceBalanceDependencies;
  readonly #records = new InstanceRecords();
  readonly #pickers = new PickerCache();
  #service: Service;
  #rule: BalanceRule;
  /** When something changes by itself: an ejection ends, an interval is over, a share grows. */
  #nextChange = Number.POSITIVE_INFINITY;
  #nextComparison = Number.POSITIVE_INFINITY;
  #nextUseTold = Number.NEGATIVE_INFINITY;
  /** Requests are answered here: a connection alone says little. */
  #answers: boolean;
  /** Pickers were made while an instance was in slow start. */
  #warming = false;

  constructor(service: Service, rule: BalanceRule, dependencies: ServiceBalanceDependencies) {
    this.#deps = dependencies;
    this.#service = service;
    this.#rule = rule;
    this.#answers = service.protocol === 'http';
    this.#startComparing(rule);
    this.#reconcile(service, Number.NEGATIVE_INFINITY);
  }

  get answers(): boolean {
    return this.#answers;
  }

  get service(): Service {
    return this.#service;
  }

  /** The same service of a newer snapshot. What is known of instances stays with those that stayed. */
  update(service: Service): void {
    this.#reconcile(service, this.#deps.now());
  }

  /** What is said of the service may have changed; what is known of the instances stays. */
  configure(rule: BalanceRule): void {
    const before = this.#rule;
    this.#rule = rule;
    this.#pickers.forgetSubsets();
    this.#nextChange = Number.NEGATIVE_INFINITY;
    if (rule.interval !== before.interval) this.#startComparing(rule);
    if (before.probed && !rule.probed) this.release();
  }

  /** An instance of this subset, none of the excluded; undefined when there is none. */
  pick(
    exclude: ReadonlySet<Instance>,
    subset: Subset | undefined,
    key: string | undefined,
  ): Instance | undefined {
    if (this.#nextChange !== Number.POSITIVE_INFINITY) {
      const now = this.#deps.now();
      if (now >= this.#nextChange) this.#advance(now);
    }
    if (this.#rule.probed) this.#tellUse();
    const slot = this.#pickers.slot(subset);
    slot.picker ??= this.#build(slot, subset);
    return slot.picker === 'none' ? undefined : slot.picker.pick(exclude, key);
  }

  /** An attempt begins, or a request on a channel that is open. */
  started(id: InstanceId): PickToken {
    const record = this.#records.get(id);
    if (record === undefined) return UNCOUNTED;
    return new Token(this, record, this.#rule.timed ? this.#deps.now() : UNTIMED);
  }

  /** What probes found out, as often in a row as their policy asks for. */
  probed(id: InstanceId, healthy: boolean): void {
    const record = this.#records.get(id);
    if (record === undefined || !this.#rule.probed) return;
    const { health } = record;
    const from = health.state;
    if (healthy ? health.probedUp(this.#deps.now()) : health.probedDown()) this.#moved(record, from);
  }

  /** Nobody probes any more: a caller may try those that only probes would have brought back. */
  release(): void {
    for (const record of this.#records.all()) {
      const from = record.health.state;
      if (record.health.release(this.#deps.now())) this.#moved(record, from);
    }
  }

  /** What is known of the instances; for people. */
  view(): InstanceView[] {
    const now = this.#deps.now();
    return Array.from(this.#records.all(), (record) => viewOf(record, now, this.#rule.slowStart));
  }

  /** It left the catalogue. */
  forget(): void {
    this.#reconcile({ ...this.#service, instances: [] }, 0);
  }

  // What tokens report.

  connected(record: InstanceRecord, began: number): void {
    const { health } = record;
    if (!this.#answers) {
      const elapsed = began === UNTIMED ? undefined : this.#deps.now() - began;
      if (elapsed !== undefined) record.latency.answered(elapsed, began + elapsed);
      record.count(false, elapsed);
    }
    const from = health.state;
    if (health.reached()) this.#moved(record, from);
  }

  failed(record: InstanceRecord, epoch: number): void {
    const now = this.#deps.now();
    record.count(true, undefined);
    record.latency.failed(0, now);
    this.#blame(record, 'connection', epoch, now);
  }

  answered(record: InstanceRecord, epoch: number, status: number, milliseconds: number): void {
    const { ejection, timed } = this.#rule;
    const failed = status === 0 || status >= FIRST_FAILURE;
    if (!this.#answers) this.#expectAnswers();
    if (timed) {
      const now = this.#deps.now();
      if (failed || status === TOO_MANY_REQUESTS) record.latency.failed(milliseconds, now);
      else record.latency.answered(milliseconds, now);
    }
    if (ejection.outlier !== undefined) {
      record.count(failed, status === 0 ? undefined : milliseconds);
      if (failed) this.#blame(record, 'answer', epoch, this.#deps.now());
    }
    if (failed) return;
    const from = record.health.state;
    if (record.health.answered(epoch)) this.#moved(record, from);
  }

  trialChanged(): void {
    this.#pickers.invalidate();
  }

  /** The first answer: delays of connections were measured so far, and mean something else. */
  #expectAnswers(): void {
    this.#answers = true;
    this.#records.restartLatencies(this.#deps.now());
  }

  #blame(record: InstanceRecord, proof: 'connection' | 'answer', epoch: number, now: number): void {
    const { health } = record;
    const from = health.state;
    if (health.failed(proof, epoch, now, this.#rule.ejection, this.#mayEject)) this.#moved(record, from);
  }

  #tellUse(): void {
    const now = this.#deps.now();
    if (now < this.#nextUseTold) return;
    this.#nextUseTold = now + USE_TOLD_MS;
    this.#deps.onUse(this.#service);
  }

  // Changes.

  /** `since`: when those came that are new. */
  #reconcile(service: Service, since: number): void {
    for (const { health, instance } of this.#records.update(service, this.#deps.now(), since)) {
      if (health.state !== 'healthy') this.#deps.onForgotten(service.name, instance.id);
    }
    this.#service = service;
    this.#pickers.invalidate();
  }

  /** Every change of health passes here: it makes the pickers stale and is told to the listener. */
  #moved(record: InstanceRecord, from: HealthState): void {
    const { health, instance } = record;
    if (!this.#records.has(record)) return; // it was deregistered meanwhile
    const { state: to, reason } = health;
    this.#pickers.invalidate();
    if (to !== 'ejected') this.#begin(record, to);
    const until = to === 'ejected' && !health.held ? health.until : undefined;
    if (until !== undefined) this.#nextChange = Math.min(this.#nextChange, until);
    this.#deps.onTransition({
      ...{ service: this.#service.name, instance: instance.id },
      ...{ from, to, reason, until },
    });
  }

  /** One that is back, or may be, begins as a new one would. */
  #begin(record: InstanceRecord, to: 'healthy' | 'trial'): void {
    const now = this.#deps.now();
    if (to === 'healthy') record.since = now;
    else record.latency.restart(this.#records.usualLatency(), now);
  }

  /** Does what the time brings. */
  #advance(now: number): void {
    this.#nextChange = this.#nextComparison;
    if (now >= this.#nextComparison) this.#compare(now);
    for (const record of this.#records.all()) {
      const { health } = record;
      const from = health.state;
      if (health.expire(now)) this.#moved(record, from);
      if (health.state === 'ejected') this.#nextChange = Math.min(this.#nextChange, health.until);
    }
    if (this.#warming) this.#pickers.invalidate();
    this.#warming = false;
  }

  #startComparing({ interval }: BalanceRule): void {
    this.#nextComparison = this.#deps.now() + interval;
    this.#nextChange = Math.min(this.#nextChange, this.#nextComparison);
    this.#records.resetCounts();
  }

  /** The interval is over: those that are much worse than the others are set aside. */
  #compare(now: number): void {
    const { ejection, interval } = this.#rule;
    const { outlier } = ejection;
    this.#nextComparison = now + interval;
    this.#nextChange = this.#nextComparison;
    if (outlier === undefined) return;
    const judged = Array.from(this.#records.all()).filter(
      ({ health, instance }) => health.state === 'healthy' && !instance.draining,
    );
    for (const { who, reason } of findOutliers(judged, outlier)) {
      const proof = this.#answers ? 'answer' : 'connection';
      if (this.#mayEject() && who.health.eject(reason, proof, now, ejection)) this.#moved(who, 'healthy');
    }
    this.#records.resetCounts();
  }

  readonly #mayEject = (): boolean => this.#records.mayEject(this.#rule.ejection);

  #build(slot: PickerSlot, subset: Subset | undefined): Picker | 'none' {
    const { now, random, locality } = this.#deps;
    const { slowStart } = this.#rule;
    const plan = planOf(this.#records.all(), subset, this.#rule);
    if (plan.present.length === 0) return 'none';
    const time = slowStart > 0 ? now() : 0;
    // While the share of one grows, pickers are made again before long.
    if (slowStart > 0 && plan.present.some((record) => record.share(time, slowStart) < 1)) {
      this.#warming = true;
      this.#nextChange = Math.min(this.#nextChange, time + slowStart / SLOW_STEPS);
    }
    return servicePicker(plan, this.#rule, slot, { locality: locality(), time, now, random });
  }
}
