import type { Socket } from 'node:net';
import type { SourcePorts } from '../../caller/source-ports.ts';
import { Policies } from '../../model/policy.ts';
import { applyDelta, type Claim, emptySnapshot, type Snapshot } from '../../model/snapshot.ts';
import type { MetricsDelta } from '../../telemetry/counters.ts';
import { ControlChannel } from '../control/channel.ts';
import { fromSupervisor } from '../control/from-supervisor.ts';
import type {
  ToSupervisor,
  ToWorker,
  WorkerList,
  WorkerListing,
  WorkerSettings,
} from '../control/messages.ts';
import type { WorkerEvent } from '../events.ts';
import { type VitalCounts, VitalSigns, type Vitals } from '../guard/vitals.ts';
import { startFingerprint, type WorkerHello } from '../succession/hello.ts';
import { SupervisorSearch } from '../succession/supervisor-search.ts';

/** What carries the bytes; made once the settings are known. */
export interface DataPlane {
  configure(settings: WorkerSettings): void;
  /** The newest snapshot; connections begun from now on are routed by it. */
  use(snapshot: Snapshot): void;
  /** What operators say of services; swapped whole. */
  usePolicies(policies: Policies): void;
  /** Begins to accept. */
  serve(): void;
  /** What it counts of connections for the vital signs. */
  readonly vitals: VitalCounts;
  /** What it holds for dead by experience: told now, and whenever that changes. */
  followOutages(listener: (down: readonly Claim[]) => void): void;
  /** Told of what somebody may want to know. */
  followEvents(listener: (event: WorkerEvent) => void): void;
  /** Where it asks which ports callers really have. */
  readonly sourcePorts: SourcePorts;
  /** Told of each measurement of this process. */
  measured(vitals: Vitals): void;
  list(list: WorkerList, limit: number): WorkerListing;
  /** Counts since the last call. */
  metrics(): MetricsDelta;
  reopenLogs(): void;
  /**
   * Accepts nothing new, waits for what lives; answers how many connections had to be cut. `letGo`: of every listening
   * socket, at once.
   */
  drain(timeoutMs: number, letGo: boolean): Promise<number>;
  /** Ends what lives, now; `drain` resolves then. */
  cut(): void;
}

/** What a worker can say of itself to a supervisor that does not know it. */
export interface WorkerOrigin extends Pick<WorkerHello, 'build' | 'index' | 'epoch' | 'listeners'> {
  /**
   * The listening sockets are kept by the service manager as well: a worker without a supervisor can serve on without
   * holding a port that the next one has to bind.
   */
  readonly adoptable: boolean;
}

/**
 * The conversation of a worker with its supervisor. A worker that lost its supervisor serves on with what it knows for
 * `daemon.orphanTimeout` and looks for the next one; then it finishes its connections and ends: nobody would tell it of
 * changes any more. One that is not adoptable does so at once.
 */
export class Worker {
  readonly #origin: WorkerOrigin;
  readonly #startedAt = Date.now();
  readonly #search = new SupervisorSearch((socket) => this.#found(socket));
  #control: ControlChannel<ToSupervisor, ToWorker>;
  readonly #makePlane: (settings: WorkerSettings) => DataPlane;
  readonly #exit: (code: number) => void;
  #plane: DataPlane | undefined;
  #settings: WorkerSettings | undefined;
  #snapshot: Snapshot = emptySnapshot;
  #flush: NodeJS.Timeout | undefined;
  #signs: VitalSigns | undefined;
  /** A catalogue that is being sent. */
  #coming: Snapshot | undefined;
  #serving = false;
  #outagesTold = false;
  #draining = false;
  /** The supervisor said that another one will come. */
  #awaiting = false;
  #orphaned: NodeJS.Timeout | undefined;
  #deadline = Number.POSITIVE_INFINITY;

  constructor(
    socket: Socket,
    origin: WorkerOrigin,
    makePlane: (settings: WorkerSettings) => DataPlane,
    exit: (code: number) => void,
  ) {
    this.#origin = origin;
    this.#makePlane = makePlane;
    this.#exit = exit;
    this.#control = this.#converse(socket);
  }

  /** Told to end by somebody who is not its supervisor: heard only by a worker that has none. */
  end(): void {
    if (!this.#control.open) this.#drain(0, true);
  }

  #converse(socket: Socket): ControlChannel<ToSupervisor, ToWorker> {
    return new ControlChannel<ToSupervisor, ToWorker>(
      socket,
      fromSupervisor,
      (message) => this.#receive(message),
      () => this.#lost(),
    );
  }

  #lost(): void {
    const daemon = this.#settings?.config.daemon;
    const alone = () => this.#drain(daemon?.drainTimeout ?? 0, true);
    if (daemon === undefined || !this.#serving || !(this.#origin.adoptable || this.#awaiting)) alone();
    else if (!this.#draining) this.#orphaned = setTimeout(alone, daemon.orphanTimeout);
    if (daemon !== undefined) this.#search.start(daemon.runtimeDirectory, this.#draining);
  }

  #found(socket: Socket): void {
    clearTimeout(this.#orphaned);
    this.#outagesTold = false;
    this.#awaiting = false;
    this.#control = this.#converse(socket);
    const { build, index, epoch, listeners } = this.#origin;
    const hello: WorkerHello = {
      ...{ build, index, epoch, listeners, startedAt: this.#startedAt, draining: this.#draining },
      fingerprint: startFingerprint(this.#settings!),
    };
    this.#control.send({ t: 'hello', hello });
  }

  #receive(message: ToWorker): void {
    switch (message.t) {
      case 'settings':
        this.#configure(message.settings);
        return;
      case 'delta':
        this.#learn(message);
        return;
      case 'policies':
        this.#plane?.usePolicies(new Policies(message.policies));
        this.#control.send({ t: 'policies', version: message.policies.version });
        return;
      case 'synced':
        this.#plane?.serve();
        this.#serving = true;
        this.#measure();
        this.#tellOutages();
        this.#control.send({ t: 'ready' });
        return;
      case 'ping':
        this.#control.send({ t: 'pong', id: message.id });
        return;
      case 'list': {
        const { id, list, limit } = message;
        this.#control.send({
          t: 'list',
          id,
          listing: this.#plane?.list(list, limit) ?? { items: [], total: 0 },
        });
        return;
      }
      case 'reopen-logs':
        this.#plane?.reopenLogs();
        return;
      case 'source-ports':
        this.#plane?.sourcePorts.answered(message.id, message.ports);
        return;
      case 'drain':
        this.#drain(message.timeoutMs, message.letGo);
        return;
      case 'await':
        this.#awaiting = true;
        return;
    }
  }

  #learn({ delta, first, more }: Extract<ToWorker, { readonly t: 'delta' }>): void {
    const known = first ? { ...emptySnapshot, version: delta.base } : (this.#coming ?? this.#snapshot);
    if (delta.base !== known.version) {
      // What is known stays; who speaks of something else is not the one to follow.
      this.#control.cutOff(`a change of version ${delta.base} where ${known.version} is known`);
      return;
    }
    this.#coming = applyDelta(known, delta);
    if (more) return;
    this.#snapshot = this.#coming;
    this.#coming = undefined;
    this.#plane?.use(this.#snapshot);
    this.#control.send({ t: 'ack', version: this.#snapshot.version });
    if (this.#serving) this.#tellOutages();
  }

  #configure(settings: WorkerSettings): void {
    const interval = settings.config.telemetry.flushInterval;
    if (interval !== this.#settings?.config.telemetry.flushInterval) {
      clearInterval(this.#flush);
      this.#flush = setInterval(() => this.#sendMetrics(), interval);
    }
    this.#settings = settings;
    if (this.#plane === undefined) {
      this.#plane = this.#makePlane(settings);
      this.#plane.sourcePorts.ask = (id, connections) =>
        this.#control.send({ t: 'source-ports', id, connections });
      this.#plane.followEvents((event) => this.#control.send({ t: 'event', event }));
    } else this.#plane.configure(settings);
  }

  #measure(): void {
    const plane = this.#plane;
    if (plane === undefined || this.#draining) return;
    this.#signs ??= new VitalSigns(plane.vitals, (vitals) => {
      plane.measured(vitals);
      this.#control.send({ t: 'vitals', vitals });
    });
  }

  /** Once in a conversation, when both sides know the same catalogue; from then on whenever it changes. */
  #tellOutages(): void {
    if (this.#outagesTold) return;
    this.#outagesTold = true;
    this.#plane?.followOutages((down) => this.#control.send({ t: 'outages', down }));
  }

  #sendMetrics(): void {
    // What nobody hears is counted on.
    if (this.#plane !== undefined && this.#control.open)
      this.#control.send({ t: 'metrics', delta: this.#plane.metrics() });
  }

  /** A second call can only bring the end nearer. */
  #drain(timeoutMs: number, letGo: boolean): void {
    const deadline = performance.now() + timeoutMs;
    const sooner = deadline < this.#deadline;
    this.#deadline = Math.min(this.#deadline, deadline);
    if (this.#draining) {
      if (sooner) setTimeout(() => this.#plane?.cut(), timeoutMs);
      return;
    }
    this.#draining = true;
    this.#signs?.stop();
    const drained = this.#plane?.drain(timeoutMs, letGo) ?? Promise.resolve(0);
    drained.then(
      (cut) => {
        this.#sendMetrics();
        this.#control.send({ t: 'drained', cut });
        // The messages leave before the process does.
        this.#control.finish(() => this.#exit(0));
      },
      () => this.#exit(1),
    );
  }
}
