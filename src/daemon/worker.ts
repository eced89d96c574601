import type { Socket } from 'node:net';
import { applyDelta, emptySnapshot, type Snapshot } from '../model/snapshot.ts';
import {
  ControlChannel,
  type ToSupervisor,
  type ToWorker,
  type WorkerList,
  type WorkerListing,
  type WorkerSettings,
} from './control.ts';
import { type VitalCounts, VitalSigns, type Vitals } from './vitals.ts';

/** What carries the bytes; made once the settings are known. */
export interface DataPlane {
  configure(settings: WorkerSettings): void;
  /** The newest snapshot; connections begun from now on are routed by it. */
  use(snapshot: Snapshot): void;
  /** Begins to accept. */
  serve(): void;
  /** What it counts of connections for the vital signs. */
  readonly vitals: VitalCounts;
  /** Told of each measurement of this process. */
  measured(vitals: Vitals): void;
  list(list: WorkerList, limit: number): WorkerListing;
  /** Counts since the last call. */
  metrics(): unknown;
  reopenLogs(): void;
  /**
   * Accepts nothing new, waits for what lives; answers how many connections had to be cut. `orphan`: the supervisor is
   * gone, and the ports are wanted by the next one.
   */
  drain(timeoutMs: number, orphan: boolean): Promise<number>;
}

/**
 * The conversation of a worker with its supervisor. A worker whose supervisor is gone finishes its connections and
 * ends: nobody would tell it of changes any more.
 */
export class Worker {
  readonly #control: ControlChannel<ToSupervisor, ToWorker>;
  readonly #makePlane: (settings: WorkerSettings) => DataPlane;
  readonly #exit: (code: number) => void;
  #plane: DataPlane | undefined;
  #settings: WorkerSettings | undefined;
  #snapshot: Snapshot = emptySnapshot;
  #flush: NodeJS.Timeout | undefined;
  #signs: VitalSigns | undefined;
  #draining = false;

  constructor(
    socket: Socket,
    makePlane: (settings: WorkerSettings) => DataPlane,
    exit: (code: number) => void,
  ) {
    this.#makePlane = makePlane;
    this.#exit = exit;
    this.#control = new ControlChannel<ToSupervisor, ToWorker>(
      socket,
      (message) => this.#receive(message),
      () => this.#drain(this.#settings?.config.daemon.drainTimeout ?? 0, true),
    );
  }

  #receive(message: ToWorker): void {
    switch (message.t) {
      case 'settings':
        this.#configure(message.settings);
        return;
      case 'delta': {
        if (message.first) this.#snapshot = { ...emptySnapshot, version: message.delta.base };
        this.#snapshot = applyDelta(this.#snapshot, message.delta);
        this.#plane?.use(this.#snapshot);
        this.#control.send({ t: 'ack', version: this.#snapshot.version });
        return;
      }
      case 'synced':
        this.#plane?.serve();
        this.#measure();
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
      case 'drain':
        this.#drain(message.timeoutMs, false);
        return;
    }
  }

  #configure(settings: WorkerSettings): void {
    const interval = settings.config.telemetry.flushInterval;
    if (interval !== this.#settings?.config.telemetry.flushInterval) {
      clearInterval(this.#flush);
      this.#flush = setInterval(() => this.#sendMetrics(), interval);
    }
    this.#settings = settings;
    if (this.#plane === undefined) this.#plane = this.#makePlane(settings);
    else this.#plane.configure(settings);
  }

  #measure(): void {
    const plane = this.#plane;
    if (plane === undefined || this.#draining) return;
    this.#signs ??= new VitalSigns(plane.vitals, (vitals) => {
      plane.measured(vitals);
      this.#control.send({ t: 'vitals', vitals });
    });
  }

  #sendMetrics(): void {
    if (this.#plane !== undefined) this.#control.send({ t: 'metrics', delta: this.#plane.metrics() });
  }

  #drain(timeoutMs: number, orphan: boolean): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#signs?.stop();
    const drained = this.#plane?.drain(timeoutMs, orphan) ?? Promise.resolve(0);
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
