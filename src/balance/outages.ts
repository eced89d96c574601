import type { ErrorCode } from '../model/errors.ts';
import type { Instance, InstanceId, Service, ServiceName } from '../model/service.ts';
import { type Claim, emptySnapshot, type Snapshot } from '../model/snapshot.ts';

/** What a probe found out; `unknown` says nothing about the instance (this host was out of descriptors, for example). */
export type ProbeOutcome = 'reached' | 'unreached' | 'unknown';

/**
 * `suspected`: a connection found nobody, and instances that it did not try are asked. `down`: every one has failed.
 * `cleared`: one was there after all; the next suspicion waits a little. A subject that is reached is forgotten.
 */
type OutageState = 'suspected' | 'down' | 'cleared';

interface OutageOptions {
  /** Opens the way to the instance that a connection would take and closes it without a byte; tells the outcome once. */
  probe(service: Service, instance: Instance, done: (outcome: ProbeOutcome) => void): void;
  /** Milliseconds: `balance.probeInterval`. */
  interval(): number;
  /** What is down now, all of it: services as a whole, and instances that were called by their own address. */
  onChange(down: readonly Claim[]): void;
  onTransition?(subject: Claim, to: 'down' | 'up'): void;
  /** From 0 up to 1. */
  readonly random?: () => number;
}

/** Services and instances that one worker may hold for dead. Beyond it they stay as they are: accepted, then reset. */
const MAX_SUBJECTS = 256;
/** A service with more instances is never held for dead as a whole: each of them would have to be asked all the time. */
const MAX_INSTANCES = 64;
/** Probes of one worker at once; others wait for their turn. */
const MAX_PROBES = 32;
/** The first probe comes after this share of the interval, then twice that, until the whole: many are back soon. */
const FIRST_SHARE = 1 / 8;
/** Intervals are shortened by up to this share, so that workers and hosts do not probe in step. */
const JITTER = 0.2;

/** Ways in which nobody was there. Others are a decision (`denied`), or this host's own trouble (`overload`). */
const UNREACHED: ReadonlySet<ErrorCode> = new Set([
  'refused',
  'timeout',
  'reset',
  'unreachable',
  'tls',
  'draining',
  'tunnel-lost',
  'no-instance',
  'no-service',
]);

/** True when an attempt that ended for this reason says that its instance cannot be reached from here. */
export function meansUnreached(reason: ErrorCode | 'done' | 'local'): boolean {
  return (UNREACHED as ReadonlySet<string>).has(reason);
}

interface Subject {
  readonly claim: Claim;
  state: OutageState;
  /** Instances that failed last. */
  readonly dead: Set<InstanceId>;
  readonly asked: Set<InstanceId>;
  rounds: number;
  timer: NodeJS.Timeout | undefined;
}

/**
 * What this worker knows to be dead by experience, so that connect() can say so. Probes only what is dead or suspected
 * of it; the first success takes the word back.
 */
export class Outages {
  readonly #options: OutageOptions;
  readonly #random: () => number;
  readonly #subjects = new Map<string, Subject>();
  readonly #waiting: (() => void)[] = [];
  #probes = 0;
  #snapshot: Snapshot = emptySnapshot;
  #stopped = false;

  constructor(options: OutageOptions) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
  }

  /** What is down now. */
  get down(): readonly Claim[] {
    const down: Claim[] = [];
    for (const { claim, state } of this.#subjects.values()) if (state === 'down') down.push(claim);
    return down;
  }

  /** The newest snapshot. An instance that is new in a service that is down is asked at once. */
  use(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    for (const [key, subject] of this.#subjects) {
      const targets = this.#targets(subject);
      if (targets.length === 0) this.#forget(key, subject);
      else if (subject.state === 'down') {
        for (const instance of targets) if (!subject.dead.has(instance.id)) this.#ask(key, subject, instance);
      } else this.#judge(key, subject);
    }
  }

  /** A connection could not reach any of these. `only`: it was made to that instance's own address. */
  unreached(service: Service, tried: ReadonlySet<Instance>, only: Instance | undefined): void {
    if (this.#stopped) return;
    const claim: Claim =
      only === undefined ? { service: service.name } : { service: service.name, instance: only.id };
    const key = keyOf(claim.service, claim.instance);
    let subject = this.#subjects.get(key);
    if (subject === undefined) {
      if (this.#subjects.size >= MAX_SUBJECTS) return;
      subject = {
        claim,
        state: 'suspected',
        dead: new Set(),
        asked: new Set(),
        rounds: 0,
        timer: undefined,
      };
      this.#subjects.set(key, subject);
    }
    for (const { id } of tried) subject.dead.add(id);
    this.#judge(key, subject);
  }

  /** A connection got through. Costs nothing while nothing is dead. */
  reached(service: ServiceName, instance: InstanceId): void {
    if (this.#subjects.size === 0) return;
    for (const key of [keyOf(service, undefined), keyOf(service, instance)]) {
      const subject = this.#subjects.get(key);
      if (subject !== undefined && subject.state !== 'cleared') this.#clear(key, subject);
    }
  }

  /** Takes every word back. */
  stop(): void {
    this.#stopped = true;
    this.#waiting.length = 0;
    for (const { timer } of this.#subjects.values()) clearTimeout(timer);
    const told = this.down.length > 0;
    this.#subjects.clear();
    if (told) this.#options.onChange([]);
  }

  /** Those that a connection might be brought to. */
  #targets({ claim }: Subject): readonly Instance[] {
    const service = this.#snapshot.services.get(claim.service);
    if (service === undefined) return [];
    return service.instances.filter(({ id, draining }) =>
      claim.instance === undefined ? !draining : id === claim.instance,
    );
  }

  /** Down when everybody has failed; otherwise those that were not tried are asked. */
  #judge(key: string, subject: Subject): void {
    const targets = this.#targets(subject);
    if (targets.length === 0 || targets.length > MAX_INSTANCES) {
      this.#forget(key, subject);
      return;
    }
    const others = targets.filter(({ id }) => !subject.dead.has(id));
    if (others.length === 0) {
      if (subject.state !== 'down') this.#enter(subject, 'down');
      if (subject.rounds === 0) this.#schedule(key, subject);
    } else if (subject.state === 'suspected') {
      for (const instance of others) this.#ask(key, subject, instance);
    }
  }

  #clear(key: string, subject: Subject): void {
    clearTimeout(subject.timer);
    subject.dead.clear();
    this.#enter(subject, 'cleared');
    // A service that now and then cannot be reached must not be probed for each time.
    subject.timer = setTimeout(() => this.#forget(key, subject), this.#options.interval()).unref();
  }

  #forget(key: string, subject: Subject): void {
    clearTimeout(subject.timer);
    if (this.#subjects.get(key) !== subject) return;
    this.#subjects.delete(key);
    if (subject.state === 'down') this.#tell(subject, 'up');
  }

  #enter(subject: Subject, to: OutageState): void {
    const before = subject.state;
    subject.state = to;
    subject.rounds = 0;
    if (before === 'down' || to === 'down') this.#tell(subject, to === 'down' ? 'down' : 'up');
  }

  #tell(subject: Subject, to: 'down' | 'up'): void {
    this.#options.onTransition?.(subject.claim, to);
    this.#options.onChange(this.down);
  }

  /** The next round of probes. */
  #schedule(key: string, subject: Subject): void {
    clearTimeout(subject.timer);
    const share = Math.min(1, FIRST_SHARE * 2 ** subject.rounds++) * (1 - JITTER * this.#random());
    subject.timer = setTimeout(() => {
      if (subject.state !== 'down') return;
      for (const instance of this.#targets(subject)) this.#ask(key, subject, instance);
      this.#schedule(key, subject);
    }, this.#options.interval() * share).unref();
  }

  /** Probes an instance, unless its last probe is still out. */
  #ask(key: string, subject: Subject, { id }: Instance): void {
    if (subject.asked.has(id)) return;
    subject.asked.add(id);
    const begin = (): void => {
      const service = this.#snapshot.services.get(subject.claim.service);
      const instance = service?.instances.find((candidate) => candidate.id === id);
      const stale = this.#subjects.get(key) !== subject || subject.state === 'cleared';
      if (stale || service === undefined || instance === undefined) {
        this.#answered();
        subject.asked.delete(id);
        return;
      }
      this.#options.probe(service, instance, (outcome) => {
        this.#answered();
        subject.asked.delete(id);
        if (this.#subjects.get(key) === subject) this.#heard(key, subject, id, outcome);
      });
    };
    if (this.#probes === MAX_PROBES) this.#waiting.push(begin);
    else {
      this.#probes++;
      begin();
    }
  }

  /** A probe is over: its place goes to the next that waits. */
  #answered(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#probes--;
    else queueMicrotask(next);
  }

  #heard(key: string, subject: Subject, id: InstanceId, outcome: ProbeOutcome): void {
    if (outcome === 'reached') this.reached(subject.claim.service, id);
    else if (outcome === 'unreached') {
      subject.dead.add(id);
      if (subject.state === 'suspected') this.#judge(key, subject);
    } else if (subject.state === 'suspected') this.#clear(key, subject);
  }
}

function keyOf(service: ServiceName, instance: InstanceId | undefined): string {
  return instance === undefined ? service : `${service} ${instance}`;
}
