import { randomBytes } from 'node:crypto';
import type { GuardStatus, ReloadAnswer } from '../admin/api.ts';
import { adminSocket } from '../admin/api.ts';
import { type AdminServer, serveAdmin, serveMetrics } from '../admin/server.ts';
import type { Config } from '../config/schema.ts';
import { clearAmbientCapabilities } from '../io/capabilities.ts';
import { raiseDescriptorLimit } from '../io/descriptors.ts';
import { ServiceNotifier, watchdogInterval } from '../io/notify.ts';
import { Poller } from '../io/poller.ts';
import { MeshError } from '../model/errors.ts';
import type { NodeName } from '../model/service.ts';
import { createLog, type Log } from '../telemetry/log.ts';
import { type AdminView, SupervisorAdmin } from './admin-backend.ts';
import { CatalogueFeed } from './catalogue-feed.ts';
import type { WorkerSettings } from './control.ts';
import { GuardDriver } from './guard-driver.ts';
import { makeDirectories, nodeName, programVersion, workerCount } from './host.ts';
import { InterceptionDriver } from './interception-driver.ts';
import { Knowledge } from './knowledge.ts';
import { launchWorker } from './launch.ts';
import { closeListeners, type Listener, openListenersSoon } from './listeners.ts';
import { OwnCredentials } from './own-credentials.ts';
import { dropRoot } from './privileges.ts';
import { Readiness } from './readiness.ts';
import type { ReloadScope } from './reload-scope.ts';
import { Reloader } from './reloader.ts';
import { ServingWatch } from './serving-watch.ts';
import { SupervisorMetrics } from './supervisor-metrics.ts';
import { TransparentSockets, transparentSocketPath } from './transparent-sockets.ts';
import { findUser } from './user.ts';
import { WorkerSet } from './worker-set.ts';

/** Time a worker has to end after its drain deadline. */
const EXIT_GRACE_MS = 2_000;

export interface SupervisorOptions {
  /** True in `mesh-node zone-agent`. */
  readonly zoneAgent: boolean;
  /** Reads the configuration anew; throws when it cannot be used. */
  reload(): Config;
}

/** Runs the agent until it was told to end (SIGTERM, SIGINT, drain) and everything is put away. */
export async function runSupervisor(config: Config, options: SupervisorOptions): Promise<void> {
  dropRoot(config.daemon.user, process.env);
  const supervisor = new Supervisor(config, options);
  await supervisor.run();
}

/** The composition root: configuration, rules, registries, caches, certificates, admin API, and the workers' lives. */
class Supervisor implements AdminView {
  readonly version = programVersion();
  readonly role: 'node' | 'zone-agent';
  readonly node: NodeName;
  readonly startedAt = Date.now();
  readonly readiness: Readiness;
  readonly interception: InterceptionDriver;
  readonly #log: Log;
  readonly #notifier = new ServiceNotifier(process.env['NOTIFY_SOCKET']);
  readonly #metrics: SupervisorMetrics;
  readonly #credentials: OwnCredentials;
  #listeners: readonly Listener[] = [];
  readonly #feed: CatalogueFeed;
  readonly #serving: ServingWatch;
  readonly #guard: GuardDriver;
  readonly #reloader: Reloader;
  readonly #ended: Promise<void>;
  #end: () => void = () => {};
  #workers: WorkerSet | undefined;
  /** Watches descriptors that Node's own modules cannot; open for as long as the agent runs. */
  readonly #poller = new Poller();
  #sockets: TransparentSockets | undefined;
  #servers: AdminServer[] = [];
  #config: Config;
  #stopping: Promise<void> | undefined;

  constructor(config: Config, options: SupervisorOptions) {
    clearAmbientCapabilities();
    raiseDescriptorLimit();
    this.#config = config;
    this.role = options.zoneAgent ? 'zone-agent' : 'node';
    this.#log = createLog({ level: config.telemetry.logLevel, process: 'supervisor' });
    this.node = nodeName(config);
    this.#credentials = new OwnCredentials(this.node, this.#log);
    this.#metrics = new SupervisorMetrics(this.version);
    this.readiness = new Readiness(['workers', 'catalogue', 'interception'], (ready) =>
      this.#log.info({ ready, blockers: this.readiness.list }, ready ? 'ready' : 'not ready'),
    );
    makeDirectories(config);
    this.#feed = this.#newFeed(config);
    this.interception = new InterceptionDriver({
      config,
      uid: findUser(config.daemon.user).uid,
      log: this.#log,
      onHealth: (problem) => {
        this.readiness.set('interception', problem);
        this.#tellReady();
      },
      onApplied: (version) => this.#feed.applied(version),
    });
    this.#serving = new ServingWatch(this.interception, this.#log);
    this.#guard = new GuardDriver({
      limits: config.guard,
      log: this.#log,
      counters: this.#metrics.counters,
      interception: this.interception,
    });
    this.#reloader = new Reloader({
      log: this.#log,
      read: () => options.reload(),
      current: () => this.#config,
      stopping: () => this.#stopping !== undefined,
      apply: (scope) => this.#apply(scope),
      counted: (outcome) => this.#metrics.reload(outcome),
    });
    this.#ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  get config(): Config {
    return this.#config;
  }

  get knowledge(): Knowledge {
    return this.#feed.knowledge;
  }

  get workers(): WorkerSet {
    if (this.#workers === undefined)
      throw new MeshError('system', 'agent', 'the workers are not started yet');
    return this.#workers;
  }

  get certificateExpiresAt(): number | undefined {
    return this.#credentials.expiresAt;
  }

  get guard(): GuardStatus {
    return this.#guard.status;
  }

  async run(): Promise<void> {
    const { config } = this;
    this.#handleSignals();
    this.#log.info(
      { version: this.version, node: this.node, zone: config.node.zone, role: this.role },
      'starting',
    );
    try {
      for (const step of this.#startUp()) {
        await step();
        // Told to end while it was starting: what has begun is taken back by #stop.
        if (this.#stopping !== undefined) break;
      }
    } catch (error) {
      await this.#stop();
      throw error;
    }
    await this.#ended;
  }

  /** Everything that has to happen until the agent serves, in order. */
  #startUp(): readonly (() => Promise<void> | void)[] {
    const { daemon, telemetry } = this.#config;
    const admin = new SupervisorAdmin(this);
    const source = {
      contentType: this.#metrics.contentType,
      text: () => this.#metrics.text(this.#metricsView()),
    };
    return [
      async () => {
        this.#listeners = await openListenersSoon(this.#config);
      },
      () => this.#credentials.load(this.#config),
      () => this.knowledge.load(),
      () => {
        const path = transparentSocketPath(daemon.runtimeDirectory);
        this.#sockets = new TransparentSockets(this.#poller, path, this.#log);
      },
      () => {
        this.#workers = this.#startWorkers();
      },
      async () => {
        this.#servers.push(await serveAdmin(adminSocket(daemon.runtimeDirectory), admin));
      },
      async () => {
        const { metricsListen } = telemetry;
        if (metricsListen !== 'off') this.#servers.push(await serveMetrics(metricsListen, admin, source));
      },
      () => this.interception.start(),
      () => {
        this.#feed.follow();
        this.#watchdog();
      },
    ];
  }

  async reload(): Promise<ReloadAnswer> {
    this.#notifier.tell('reloading');
    return await this.#reloader.reload().finally(() => this.#tellReady());
  }

  /** Begins to end and resolves once new connections go direct; what lives may finish. */
  async drain(): Promise<void> {
    this.readiness.set('draining', 'asked to');
    await this.interception.withdraw();
    void this.#stop();
  }

  #newKnowledge(config: Config): Knowledge {
    return new Knowledge(config, this.#log, {
      answered: (tier, known) => this.#metrics.cacheAnswered(tier, known),
      decorate: (service) => service,
    });
  }

  #newFeed(config: Config): CatalogueFeed {
    return new CatalogueFeed(this.#newKnowledge(config), {
      publish: (delta) => this.workers.publish(delta),
      restart: () => this.workers.restart(),
      registryLost: (source) => this.#metrics.registryLost(source),
      onBlocked: (reason) => this.readiness.set('catalogue', reason),
    });
  }

  #metricsView() {
    const { ready } = this.readiness;
    const { knowledge, workers, interception, certificateExpiresAt } = this;
    return { ready, knowledge, workers, interception, certificateExpiresAt };
  }

  #startWorkers(): WorkerSet {
    const { daemon } = this.#config;
    const launch = {
      listeners: this.#listeners,
      epoch: randomBytes(8).readBigUInt64LE(),
      hangTimeoutMs: daemon.hangTimeout,
    };
    return new WorkerSet({
      size: workerCount(this.#config),
      hangTimeoutMs: daemon.hangTimeout,
      heartbeatMs: daemon.heartbeatInterval,
      start: (index, events) => launchWorker(index, launch, events),
      full: () => this.#feed.full(),
      settings: () => this.#workerSettings(),
      onAcknowledged: (version) => {
        const snapshot = this.#feed.acknowledged(version);
        if (snapshot !== undefined) this.interception.acknowledged(snapshot);
      },
      onMetrics: (index, delta) => this.#metrics.worker(`worker-${index}`, delta as never),
      onMeasured: (index, vitals) => this.#guard.measured(`worker-${index}`, vitals),
      onTransition: (index, pid, from, to) => {
        this.#log.info({ worker: index, pid, from, to }, `worker: ${from} → ${to}`);
        this.#checkWorkers();
      },
      onExit: (index, pid, why) => {
        this.#metrics.workerGone(`worker-${index}`, why.startsWith('exited') ? 'exit' : 'killed');
        this.#guard.gone(`worker-${index}`, this.#stopping !== undefined);
        if (this.#stopping === undefined)
          this.#log.error({ worker: index, pid, why }, 'worker: gone, replacing it');
        this.#checkWorkers();
      },
    });
  }

  #workerSettings(): WorkerSettings {
    return {
      config: this.#config,
      node: this.node,
      relay: this.role === 'zone-agent',
      credentials: this.#credentials.current(),
    };
  }

  #checkWorkers(): void {
    const workers = this.#workers;
    if (workers === undefined || this.#stopping !== undefined) return;
    const { serving, size } = workers;
    this.readiness.set('workers', serving === 0 ? `0 of ${size} serve` : undefined);
    this.#tellReady();
    this.#serving.check(serving, this.#config.daemon.suspendTimeout);
  }

  /** To systemd the agent is up when it serves: an unreachable registry must not fail the boot of a host. */
  #tellReady(): void {
    const blocked = this.readiness.list.some(({ name }) => name === 'workers' || name === 'interception');
    if (!blocked && this.#stopping === undefined) {
      this.#notifier.tell('ready', `${this.node} in ${this.#config.node.zone}`);
    }
  }

  async #apply({ changed, next }: ReloadScope): Promise<void> {
    // Whatever can be refused comes first, so that a refusal changes nothing.
    const others = changed.some((key) => key === 'registries' || key === 'cache');
    const knowledge = others ? this.#newKnowledge(next) : undefined;
    await this.interception.configure(next);
    this.#config = next;
    this.#log.level = next.telemetry.logLevel;
    this.#guard.configure(next.guard);
    await this.#credentials.load(next);
    if (knowledge !== undefined) await this.#feed.replace(knowledge);
    this.workers.configure(this.#workerSettings());
  }

  #handleSignals(): void {
    const stop = () => void this.#stop();
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
    process.on('SIGHUP', () => {
      this.reload().catch(() => undefined); // it was logged, and the old configuration stays
    });
    process.on('SIGUSR1', () => {
      for (const worker of this.#workers ?? []) worker.reopenLogs();
    });
  }

  #watchdog(): void {
    const interval = watchdogInterval(process.env, process.pid);
    if (interval !== undefined) setInterval(() => this.#notifier.tell('watchdog'), interval).unref();
  }

  /** New connections go direct first; then live ones may finish; then everything of ours is taken out. */
  #stop(): Promise<void> {
    this.#stopping ??= this.#stopOnce().catch((error: unknown) => {
      this.#log.error({ error }, 'stopping');
      this.#end();
    });
    return this.#stopping;
  }

  async #stopOnce(): Promise<void> {
    this.#serving.stop();
    this.#guard.stop();
    this.readiness.set('draining', 'the agent stops');
    this.#notifier.tell('stopping', 'draining');
    await this.interception.withdraw();
    await this.#workers?.drain(this.#config.daemon.drainTimeout, EXIT_GRACE_MS);
    await this.interception.remove();
    closeListeners(this.#listeners);
    this.#sockets?.close();
    this.#poller.close();
    await Promise.all([this.knowledge.stop(), ...this.#servers.map((server) => server.close())]);
    this.#log.info('stopped');
    this.#log.flush(() => this.#end());
  }
}
