import type { Socket } from 'node:net';
import { MeshError } from '../../model/errors.ts';
import type { PolicySet } from '../../model/policy.ts';
import type { Claim, SnapshotDelta } from '../../model/snapshot.ts';
import type { MetricsDelta } from '../../telemetry/counters.ts';
import { ControlChannel } from '../control/channel.ts';
import { fromWorker } from '../control/from-worker.ts';
import { parseListing } from '../control/listings.ts';
import type {
  ToSupervisor,
  ToWorker,
  WorkerList,
  WorkerListing,
  WorkerSettings,
} from '../control/messages.ts';
import type { WorkerEvent } from '../events.ts';
import type { Vitals } from '../guard/vitals.ts';
import { sourcePortsOf } from '../supervisor/source-ports.ts';
import type { WorkerLife } from './worker-life.ts';

/** A worker's life, in order; `gone` is final. */
export const workerStates = ['starting', 'syncing', 'serving', 'draining', 'gone'] as const;
export type WorkerState = (typeof workerStates)[number];

const MAY_FOLLOW: Readonly<Record<WorkerState, readonly WorkerState[]>> = {
  starting: ['syncing', 'draining', 'gone'],
  syncing: ['serving', 'draining', 'gone'],
  serving: ['draining', 'gone'],
  draining: ['gone'],
  gone: [],
};

/** The supervisor's end of a conversation. */
export type WorkerLink = ControlChannel<ToWorker, ToSupervisor>;

/** Time that a worker has to end after it has said goodbye. */
const EXIT_GRACE_MS = 2_000;

/** Time that a worker has to take the last words of its supervisor. */
const FLUSH_MS = 1_000;

/** Questions to one worker that may be open at once. */
const MAX_QUESTIONS = 64;
/** A worker that does not serve yet may be silent for this long: on a host that boots, everything starts at once. */
const BOOT_TIMEOUT_MS = 15_000;

export interface WorkerEvents {
  stateChanged(worker: WorkerProcess, from: WorkerState, to: WorkerState): void;
  acknowledged(worker: WorkerProcess, version: number): void;
  metrics(worker: WorkerProcess, delta: MetricsDelta): void;
  measured(worker: WorkerProcess, vitals: Vitals): void;
  outages(worker: WorkerProcess, down: readonly Claim[]): void;
  event(worker: WorkerProcess, event: WorkerEvent): void;
  /** The process is gone; `why` is for people. */
  exited(worker: WorkerProcess, why: string): void;
}

interface Question {
  readonly list: WorkerList;
  readonly limit: number;
  readonly resolve: (listing: WorkerListing) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** The supervisor's view of one worker: what it was told, what it has acknowledged, whether it is alive. */
export class WorkerProcess {
  readonly index: number;
  readonly pid: number;
  readonly startedAt = Date.now();
  /** Newest snapshot that this worker routes by; -1 before it has one. */
  acknowledged = -1;
  /** Policies that this worker goes by; -1 before it said so. */
  policyVersion = -1;
  readonly #life: WorkerLife;
  readonly #control: ControlChannel<ToWorker, ToSupervisor>;
  readonly #events: WorkerEvents;
  readonly #questions = new Map<number, Question>();
  readonly #hangTimeoutMs: number;
  #state: WorkerState;
  /** Newest snapshot that it was told of. */
  #told = -1;
  #sequence = 0;
  #lastSign = performance.now();
  #killedFor: string | undefined;
  #left = false;

  constructor(
    index: number,
    life: WorkerLife,
    link: Socket | WorkerLink,
    hangTimeoutMs: number,
    events: WorkerEvents,
    state: WorkerState = 'starting',
  ) {
    this.index = index;
    this.pid = life.pid;
    this.#life = life;
    this.#state = state;
    this.#events = events;
    this.#hangTimeoutMs = hangTimeoutMs;
    const receive = (message: ToSupervisor) => this.#receive(message);
    const closed = (error: Error | undefined) => this.#hungUp(error);
    if (link instanceof ControlChannel) {
      this.#control = link;
      link.handTo(receive, closed);
    } else this.#control = new ControlChannel(link, fromWorker, receive, closed);
    life.onEnd((how) => this.#exited(this.#killedFor === undefined ? how : `${how}: ${this.#killedFor}`));
  }

  get state(): WorkerState {
    return this.#state;
  }

  configure(settings: WorkerSettings): void {
    this.#send({ t: 'settings', settings });
  }

  /** Sends all policies, in the place of those before. */
  usePolicies(policies: PolicySet): void {
    this.#send({ t: 'policies', policies });
  }

  /** Sends everything there is, as a chain of deltas; the worker serves once it has applied them. */
  begin(deltas: readonly SnapshotDelta[]): void {
    this.restart(deltas);
    this.#send({ t: 'synced' });
    this.#become('syncing');
  }

  /** Replaces what the worker knows by another catalogue; it goes on serving meanwhile. */
  restart(deltas: readonly SnapshotDelta[]): void {
    this.acknowledged = -1;
    this.#told = -1;
    deltas.forEach((delta, at) => {
      this.#told = delta.base + 1;
      this.#send({ t: 'delta', delta, first: at === 0, more: at < deltas.length - 1 });
    });
  }

  /** Sends the next change of the catalogue. */
  publish(delta: SnapshotDelta): void {
    this.#told = delta.base + 1;
    this.#send({ t: 'delta', delta, first: false, more: false });
  }

  /** Milliseconds since its last sign of life. */
  get silentMs(): number {
    return performance.now() - this.#lastSign;
  }

  /** Its silence until now does not count. */
  excuse(): void {
    this.#lastSign = performance.now();
  }

  /** Asks for a sign of life, and ends a worker that has given none for too long (SIGSTOP, endless loop). */
  heartbeat(): void {
    const silent = this.silentMs;
    const booting = this.#state === 'starting' || this.#state === 'syncing';
    const patience = booting ? Math.max(BOOT_TIMEOUT_MS, this.#hangTimeoutMs) : this.#hangTimeoutMs;
    if (silent > patience) this.kill(`no sign of life for ${Math.round(silent)} ms`);
    else this.#send({ t: 'ping', id: ++this.#sequence });
  }

  list(list: WorkerList, limit: number): Promise<WorkerListing> {
    return new Promise((resolve, reject) => {
      if (this.#questions.size >= MAX_QUESTIONS) {
        reject(
          new MeshError('overload', 'agent', `worker ${this.index} has ${MAX_QUESTIONS} open questions`),
        );
        return;
      }
      const id = ++this.#sequence;
      const timer = setTimeout(() => {
        this.#questions.delete(id);
        reject(
          new MeshError(
            'timeout',
            'agent',
            `worker ${this.index} did not answer in ${this.#hangTimeoutMs} ms`,
          ),
        );
      }, this.#hangTimeoutMs);
      this.#questions.set(id, { list, limit, resolve, reject, timer });
      this.#send({ t: 'list', id, list, limit });
    });
  }

  reopenLogs(): void {
    this.#send({ t: 'reopen-logs' });
  }

  /** `letGo`: of every listening socket, at once. A second call can only bring the end nearer. */
  drain(timeoutMs: number, letGo: boolean): void {
    if (this.#state === 'gone') return;
    if (this.#state !== 'draining') this.#become('draining');
    this.#send({ t: 'drain', timeoutMs, letGo });
  }

  /** Tells it that another supervisor comes; resolves once it was told, or does not listen. */
  awaitNext(): Promise<void> {
    this.#send({ t: 'await' });
    return this.#control.flushed(FLUSH_MS);
  }

  /** Ends the conversation, not the worker: resolves once everything said has left. */
  leave(): Promise<void> {
    this.#left = true;
    this.#life.release();
    return this.#control.flushed(FLUSH_MS).then(() => this.#control.finish(() => {}));
  }

  kill(why: string): void {
    if (this.#state === 'gone' || this.#killedFor !== undefined) return;
    this.#killedFor = why;
    this.#life.kill();
  }

  #hungUp(error: Error | undefined): void {
    if (this.#left) return;
    if (error instanceof MeshError && error.code === 'protocol')
      this.kill(`it was cut off: ${error.message}`);
    // One that drains says goodbye and ends.
    else if (this.#state === 'draining') {
      this.#life.hungUp();
      setTimeout(() => this.kill('it said goodbye and did not end'), EXIT_GRACE_MS).unref();
    } else this.kill('its control socket closed');
  }

  #send(message: ToWorker): void {
    // That a conversation is over is told elsewhere.
    if (this.#state !== 'gone' && this.#control.open && !this.#control.send(message))
      this.kill('it does not read its control socket');
  }

  #receive(message: ToSupervisor): void {
    this.#lastSign = performance.now();
    switch (message.t) {
      case 'ready':
        if (this.#state === 'syncing') this.#become('serving');
        return;
      case 'ack':
        // Of a catalogue that was replaced since, or of one that it was never told.
        if (message.version > this.#told) return;
        this.acknowledged = message.version;
        this.#events.acknowledged(this, message.version);
        return;
      case 'policies':
        this.policyVersion = message.version;
        return;
      case 'metrics':
        this.#events.metrics(this, message.delta);
        return;
      case 'vitals':
        this.#events.measured(this, message.vitals);
        return;
      case 'outages':
        this.#events.outages(this, message.down);
        return;
      case 'event':
        this.#events.event(this, message.event);
        return;
      case 'list': {
        const question = this.#questions.get(message.id);
        if (question === undefined) return;
        this.#questions.delete(message.id);
        clearTimeout(question.timer);
        this.#answered(question, message.listing);
        return;
      }
      case 'source-ports':
        this.#send({ t: 'source-ports', id: message.id, ports: sourcePortsOf(message.connections) });
        return;
      case 'hello':
      case 'pong':
      case 'drained':
        return;
    }
  }

  #answered({ list, limit, resolve, reject }: Question, said: WorkerListing): void {
    const listing = parseListing(list, said, limit);
    if (listing !== undefined) resolve(listing);
    else {
      reject(new MeshError('protocol', 'agent', `worker ${this.index} answered something else`));
      if (this.#control.strict) this.#control.cutOff(`its list of ${list} is none`);
    }
  }

  #exited(why: string): void {
    if (this.#state === 'gone') return;
    this.#become('gone');
    this.#control.close();
    for (const question of this.#questions.values()) {
      clearTimeout(question.timer);
      question.reject(new MeshError('system', 'agent', `worker ${this.index} is gone: ${why}`));
    }
    this.#questions.clear();
    this.#events.exited(this, why);
  }

  #become(next: WorkerState): void {
    const from = this.#state;
    if (!MAY_FOLLOW[from].includes(next))
      throw new Error(`worker ${this.index}: ${from} → ${next} is not a transition`);
    this.#state = next;
    this.#events.stateChanged(this, from, next);
  }
}
