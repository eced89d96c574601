import type { ActiveProbe } from '../model/policy.ts';
import type { Instance, InstanceId, Service, ServiceName } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { ProbeOutcome } from './outages.ts';

interface ActiveProbeOptions {
  /** Undefined: this service is not to be probed. The same object for as long as it is in use. */
  policy(service: ServiceName): ActiveProbe | undefined;
  /** Asks an instance; tells the outcome once, within `probe.timeout`. */
  ask(service: Service, instance: Instance, probe: ActiveProbe, done: (outcome: ProbeOutcome) => void): void;
  /** So many answers in a row say so. */
  report(service: ServiceName, instance: InstanceId, healthy: boolean): void;
  /** This service is not probed any more: what was said last does not hold for ever. */
  release(service: ServiceName): void;
  /** Milliseconds, never going back. */
  readonly now?: () => number;
  /** From 0 up to 1. */
  readonly random?: () => number;
}

/** Services that one worker probes; those beyond are not, until others are used no more. */
const MAX_SERVICES = 256;
/** Instances that one worker probes. */
const MAX_TARGETS = 4096;
/** Probes of one worker at once; others wait for their turn. */
const MAX_PROBES = 32;
/** A service that nobody has called for so long is not probed any more. */
const IDLE_MS = 300_000;
/** Intervals are shortened by up to this share, so that workers and hosts do not probe in step. */
const JITTER = 0.2;

interface Target {
  readonly instance: InstanceId;
  timer: NodeJS.Timeout | undefined;
  /** In a row. */
  successes: number;
  failures: number;
}

interface Subject {
  service: Service;
  probe: ActiveProbe;
  readonly targets: Map<InstanceId, Target>;
  lastUse: number;
}

/**
 * Asks the instances of services whose policy says so, for as long as this worker calls them: each by itself, from a
 * random moment on, so that nothing is asked in step.
 */
export class ActiveProbes {
  readonly #options: ActiveProbeOptions;
  readonly #now: () => number;
  readonly #random: () => number;
  readonly #subjects = new Map<ServiceName, Subject>();
  readonly #waiting = new Set<() => void>();
  #targets = 0;
  #running = 0;
  #stopped = false;

  constructor(options: ActiveProbeOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#random = options.random ?? Math.random;
  }

  /** Somebody calls this service. */
  inUse(service: Service): void {
    if (this.#stopped) return;
    const subject = this.#subjects.get(service.name);
    if (subject !== undefined) {
      subject.lastUse = this.#now();
      return;
    }
    const probe = this.#options.policy(service.name);
    if (probe === undefined || this.#subjects.size >= MAX_SERVICES) return;
    const begun: Subject = { service, probe, targets: new Map(), lastUse: this.#now() };
    this.#subjects.set(service.name, begun);
    this.#follow(begun, service);
  }

  /** The newest snapshot. */
  use(snapshot: Snapshot): void {
    for (const subject of this.#subjects.values()) {
      const service = snapshot.services.get(subject.service.name);
      if (service === undefined) this.#forget(subject);
      else if (service !== subject.service) this.#follow(subject, service);
    }
  }

  /** Policies have changed: where this section did, everything is asked anew. */
  usePolicies(): void {
    for (const subject of this.#subjects.values()) {
      const probe = this.#options.policy(subject.service.name);
      if (probe === subject.probe) continue;
      if (probe === undefined) {
        this.#forget(subject);
        continue;
      }
      subject.probe = probe;
      for (const target of subject.targets.values()) this.#drop(subject, target);
      this.#follow(subject, subject.service);
    }
  }

  /** Nothing is asked any more. What was said last holds: this worker takes nothing new. */
  stop(): void {
    this.#stopped = true;
    for (const subject of this.#subjects.values()) {
      for (const target of subject.targets.values()) this.#drop(subject, target);
    }
    this.#subjects.clear();
    this.#waiting.clear();
  }

  #follow(subject: Subject, service: Service): void {
    const { targets } = subject;
    subject.service = service;
    const present = new Set<InstanceId>();
    for (const { id, draining } of service.instances) if (!draining) present.add(id);
    for (const target of targets.values()) if (!present.has(target.instance)) this.#drop(subject, target);
    for (const instance of present) {
      if (targets.has(instance) || this.#targets >= MAX_TARGETS) continue;
      const target: Target = { instance, timer: undefined, successes: 0, failures: 0 };
      targets.set(instance, target);
      this.#targets++;
      this.#later(subject, target, subject.probe.interval * this.#random());
    }
  }

  #forget(subject: Subject): void {
    for (const target of subject.targets.values()) this.#drop(subject, target);
    this.#subjects.delete(subject.service.name);
    this.#options.release(subject.service.name);
  }

  #drop(subject: Subject, target: Target): void {
    clearTimeout(target.timer);
    subject.targets.delete(target.instance);
    this.#targets--;
  }

  #later(subject: Subject, target: Target, milliseconds: number): void {
    target.timer = setTimeout(() => {
      if (this.#now() - subject.lastUse > IDLE_MS) this.#forget(subject);
      else this.#await(() => this.#ask(subject, target));
    }, milliseconds).unref();
  }

  /** Begins when there is a place. */
  #await(begin: () => void): void {
    if (this.#running === MAX_PROBES) this.#waiting.add(begin);
    else {
      this.#running++;
      begin();
    }
  }

  /** A place is free: it goes to the one that has waited longest. */
  #leave(): void {
    const [next] = this.#waiting;
    if (next === undefined) this.#running--;
    else {
      this.#waiting.delete(next);
      queueMicrotask(next);
    }
  }

  #ask(subject: Subject, target: Target): void {
    const { service, probe } = subject;
    const isWanted = () => subject.targets.get(target.instance) === target;
    const instance = service.instances.find(({ id }) => id === target.instance);
    if (!isWanted() || instance === undefined) {
      this.#leave();
      return;
    }
    this.#options.ask(service, instance, probe, (outcome) => {
      this.#leave();
      if (!isWanted()) return;
      this.#heard(subject, target, outcome);
      this.#later(subject, target, probe.interval * (1 - JITTER * this.#random()));
    });
  }

  #heard({ service, probe }: Subject, target: Target, outcome: ProbeOutcome): void {
    if (outcome === 'reached') {
      target.failures = 0;
      if (++target.successes === probe.rise) this.#options.report(service.name, target.instance, true);
    } else if (outcome === 'unreached') {
      target.successes = 0;
      if (++target.failures === probe.fall) this.#options.report(service.name, target.instance, false);
    }
  }
}
