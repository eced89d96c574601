import type { Config } from '../../config/schema.ts';
import { takeListenDescriptors } from '../../io/listen-fds.ts';
import type { ServiceNotifier } from '../../io/notify.ts';
import type { Poller } from '../../io/poller.ts';
import { MeshError } from '../../model/errors.ts';
import type { MetricsDelta } from '../../telemetry/counters.ts';
import type { Log } from '../../telemetry/log.ts';
import type { WorkerSettings } from '../control/messages.ts';
import type { WorkerProcess } from '../workers/worker-process.ts';
import { HeldListeners } from './held-listeners.ts';
import { inherit } from './inheritance.ts';
import type { Leftover } from './leftovers.ts';
import type { Listener } from './listeners.ts';
import { OwnProgram } from './own-program.ts';
import { Succession } from './succession.ts';
import { type CommandLines, Upgrader, type UpgradeStep } from './upgrade.ts';

interface HandoverOptions {
  readonly log: Log;
  readonly poller: Poller;
  readonly notifier: ServiceNotifier;
  /** How this process was started. */
  readonly lines: CommandLines;
  config(): Config;
  settings(): WorkerSettings;
  /** Those that are handed over. */
  workers(): Iterable<WorkerProcess>;
  /** True once new workers can know what those of before do. */
  known(): boolean;
  onMetrics(name: string, delta: MetricsDelta): void;
  onGone(name: string): void;
  /** Nothing came of an upgrade: everything is as it was. */
  goOn(): void;
}

/**
 * What this supervisor was left by the one before it, and leaves to the next: its program, listening sockets and
 * workers.
 */
export class Handover {
  readonly #inherited = inherit(process.env);
  readonly #program = new OwnProgram(this.#inherited?.installedAt);
  readonly #options: HandoverOptions;
  readonly #upgrader: Upgrader;
  #listeners = HeldListeners.none();
  #succession: Succession | undefined;

  constructor(options: HandoverOptions) {
    this.#options = options;
    const { log, notifier, lines, goOn } = options;
    this.#upgrader = new Upgrader({
      ...{ log, notifier, lines, goOn, program: this.#program, inherited: this.#inherited },
      listeners: () => this.#listeners.offer(),
      handOver: async () => this.#succession?.handOver(options.workers()),
    });
  }

  /** Version of the program. */
  get version(): string {
    return this.#program.identity.version;
  }

  /** This image of the process is not the first one. */
  get upgraded(): boolean {
    return this.#inherited !== undefined;
  }

  get listeners(): readonly Listener[] {
    return this.#listeners.all;
  }

  /** What makes or adopts workers. After {@link begin}. */
  get succession(): Succession {
    if (this.#succession === undefined) throw new MeshError('system', 'agent', 'nothing is taken over yet');
    return this.#succession;
  }

  /** Workers of before that only finish what they have. */
  get leftovers(): Iterable<Leftover> {
    return this.#succession?.leftovers ?? [];
  }

  /**
   * Receives workers of before from now on, and takes the listening sockets that were left or opens them. Throws a
   * MeshError when that cannot be.
   */
  async begin(): Promise<void> {
    const { log, poller, notifier, config, settings, known, onMetrics, onGone } = this.#options;
    const succession = new Succession({
      ...{ log, poller, config, settings, known, onMetrics, onGone },
      program: this.#program,
      adoptable: notifier.managed,
    });
    this.#succession = succession;
    const offered = [
      ...takeListenDescriptors(process.env, process.pid),
      ...(this.#inherited?.listeners ?? []),
    ];
    this.#listeners = await HeldListeners.hold(config(), offered, {
      notifier,
      log,
      onTaken: () => succession.portTaken(),
    });
  }

  /** Waits for the workers of before. After {@link begin}. */
  gather(): Promise<void> {
    return this.succession.gather(this.#listeners.all);
  }

  /** See {@link Upgrader.prepare}. */
  prepareUpgrade(startedAt: number): Promise<UpgradeStep> {
    return this.#upgrader.prepare(startedAt);
  }

  /** This version cannot start, for this reason: the one before goes on, where there was one. */
  fallBack(error: unknown): Promise<void> {
    return this.#upgrader.fallBack(error);
  }

  /** Leftovers go on by themselves for `drainMs`; undefined: as they did. */
  async leave(drainMs: number | undefined): Promise<void> {
    await this.#succession?.leftovers.leave(drainMs);
  }

  close(): void {
    this.#succession?.close();
    this.#listeners.close();
  }
}
