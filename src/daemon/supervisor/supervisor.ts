import type { GuardStatus, ReloadAnswer } from '../../admin/api.ts';
import { adminSocket } from '../../admin/api.ts';
import { type AdminServer, serveAdmin, serveMetrics } from '../../admin/server.ts';
import type { Config } from '../../config/schema.ts';
import { clearAmbientCapabilities } from '../../io/capabilities.ts';
import { raiseDescriptorLimit } from '../../io/descriptors.ts';
import { takeListenDescriptors } from '../../io/listen-fds.ts';
import { ServiceNotifier, watchdogInterval } from '../../io/notify.ts';
import { Poller } from '../../io/poller.ts';
import { MeshError } from '../../model/errors.ts';
import type { NodeName } from '../../model/service.ts';
import { createLog, type Log } from '../../telemetry/log.ts';
import type { WorkerSettings } from '../control.ts';
import { GuardDriver } from '../guard/guard-driver.ts';
import { makeDirectories, nodeName, workerCount } from '../host.ts';
import { FallbackFiles } from '../interception/fallback-files.ts';
import { InterceptionDriver } from '../interception/interception-driver.ts';
import { ServingWatch } from '../interception/serving-watch.ts';
import { HeldListeners } from '../succession/held-listeners.ts';
import { inherit } from '../succession/inheritance.ts';
import type { Leftover } from '../succession/leftovers.ts';
import { OwnProgram } from '../succession/own-program.ts';
import { Succession } from '../succession/succession.ts';
import { type CommandLines, Upgrader, type UpgradeStep } from '../succession/upgrade.ts';
import { findUser } from '../user.ts';
import { WorkerSet } from '../workers/worker-set.ts';
import { type AdminView, SupervisorAdmin } from './admin-backend.ts';
import { CatalogueFeed } from './catalogue-feed.ts';
import { DisabledFile } from './disabled-file.ts';
import { ExemptionWatch } from './exemptions.ts';
import { Knowledge } from './knowledge.ts';
import { Naming } from './naming.ts';
import { Observer } from './observer.ts';
import { HostOutages } from './outages.ts';
import { OwnCredentials } from './own-credentials.ts';
import { dropRoot } from './privileges.ts';
import { Readiness } from './readiness.ts';
import type { ReloadScope } from './reload-scope.ts';
import { Reloader } from './reloader.ts';
import { SupervisorMetrics } from './supervisor-metrics.ts';
import { TransparentSockets, transparentSocketPath } from './transparent-sockets.ts';

/** Time a worker has to end after its drain deadline. */
const EXIT_GRACE_MS = 2_000;

export interface SupervisorOptions {
  /** True in `mesh-node zone-agent`. */
  readonly zoneAgent: boolean;
  /** Reads the configuration anew; throws when it cannot be used. */
  reload(): Config;
  /** How this process was started. */
  readonly commandLines: CommandLines;
}

/** Runs the agent until it was told to end (SIGTERM, SIGINT, drain) and everything is put away. */
export async function runSupervisor(config: Config, options: SupervisorOptions): Promise<void> {
  dropRoot(config.daemon.user, process.env);
  const supervisor = new Supervisor(config, options);
  await supervisor.run();
}

/** The composition root: configuration, rules, registries, caches, certificates, admin API, and the workers' lives. */
class Supervisor implements AdminView {
  readonly #inherited = inherit(process.env);
  readonly #program = new OwnProgram(this.#inherited?.installedAt);
  readonly version = this.#program.identity.version;
  readonly role: 'node' | 'zone-agent';
  readonly node: NodeName;
  readonly startedAt = Date.now();
  readonly readiness: Readiness;
  readonly interception: InterceptionDriver;
  readonly exemptions: ExemptionWatch;
  readonly observer: Observer;
  readonly #log: Log;
  readonly #notifier = new ServiceNotifier(process.env['NOTIFY_SOCKET']);
  readonly #metrics: SupervisorMetrics;
  readonly #credentials: OwnCredentials;
  readonly #upgrader: Upgrader;
  #listeners = HeldListeners.none();
  #succession: Succession | undefined;
  readonly naming: Naming;
  readonly #feed: CatalogueFeed;
  readonly fallback: FallbackFiles;
  readonly #disabled: DisabledFile;
  readonly #serving: ServingWatch;
  readonly #guard: GuardDriver;
  readonly outages: HostOutages;
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
  /** The start did not succeed. */
  #failed = false;

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
    this.naming = new Naming(config, this.#log);
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
      onAllowList: (entries) => this.exemptions.setList(entries),
      onUnattended: (render) => this.fallback.changed(render),
    });
    this.fallback = new FallbackFiles(config.daemon.stateDirectory, this.#log);
    this.#disabled = new DisabledFile(config.capture.disabledFile, {
      changed: (disabled) => {
        if (disabled) this.#log.warn('disabled by the operator: new connections go direct');
        void (disabled ? this.interception.suspend('disabled') : this.interception.resume('disabled'));
      },
      failed: (reason) => this.#log.warn({ reason }, 'capture.disabledFile'),
    });
    this.exemptions = new ExemptionWatch({
      follow: (changed) => this.naming.hostNames.follow(changed),
      patienceMs: config.names.resolveTimeout,
      log: this.#log.child({ component: 'capture' }),
      changed: ({ exempt, only }) => this.interception.setExemptions(exempt, only),
      callersChanged: () => this.#workers?.configure(this.#workerSettings()),
    });
    this.exemptions.setOnly(config.capture.only);
    this.observer = new Observer(config, this.#poller, this.#log);
    this.#serving = new ServingWatch(this.interception, this.#log);
    this.#guard = new GuardDriver({
      limits: config.guard,
      log: this.#log,
      counters: this.#metrics.counters,
      interception: this.interception,
    });
    this.outages = new HostOutages((addresses, down) => {
      this.interception.setDown(addresses);
      this.#metrics.outages(down);
    });
    this.#reloader = new Reloader({
      log: this.#log,
      read: () => options.reload(),
      current: () => this.#config,
      stopping: () => this.#stopping !== undefined,
      apply: (scope) => this.#apply(scope),
      counted: (outcome) => this.#metrics.reload(outcome),
    });
    this.#upgrader = new Upgrader({
      ...{ log: this.#log, notifier: this.#notifier, program: this.#program, lines: options.commandLines },
      inherited: this.#inherited,
      listeners: () => this.#listeners.offer(),
      handOver: async () => this.#succession?.handOver(this.#workers ?? []),
      goOn: () => this.#tellReady(),
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

  get leftovers(): Iterable<Leftover> {
    return this.#succession?.leftovers ?? [];
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
    this.#watchdog();
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
      await this.#upgrader.fallBack(error);
      this.#failed = true;
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
        const succession = this.#newSuccession();
        this.#succession = succession;
        const offered = [
          ...takeListenDescriptors(process.env, process.pid),
          ...(this.#inherited?.listeners ?? []),
        ];
        this.#listeners = await HeldListeners.hold(this.#config, offered, {
          notifier: this.#notifier,
          log: this.#log,
          onTaken: () => succession.portTaken(),
        });
      },
      () => this.#credentials.load(this.#config),
      () => this.naming.load(),
      () => this.knowledge.load(),
      () => {
        const path = transparentSocketPath(daemon.runtimeDirectory);
        this.#sockets = new TransparentSockets(this.#poller, path, this.#log);
      },
      () => this.#succession!.gather(this.#listeners.all),
      () => {
        this.#workers = this.#startWorkers(this.#succession!);
        this.#checkWorkers(); // those that were adopted serve already
      },
      async () => {
        this.#servers.push(await serveAdmin(adminSocket(daemon.runtimeDirectory), admin));
      },
      async () => {
        const { metricsListen } = telemetry;
        if (metricsListen !== 'off') this.#servers.push(await serveMetrics(metricsListen, admin, source));
      },
      () => this.#disabled.start(),
      () => this.observer.load(),
      () => this.observer.configure(this.#config),
      () => this.interception.start(),
      () => this.naming.follow(this.knowledge.catalogue),
      () => this.#feed.follow(),
    ];
  }

  async reload(): Promise<ReloadAnswer> {
    this.#notifier.tell('reloading');
    return await this.#reloader.reload().finally(() => this.#tellReady());
  }

  upgrade(): Promise<UpgradeStep> {
    if (this.#stopping !== undefined) throw new MeshError('draining', 'agent', 'the agent stops');
    return this.#upgrader.prepare(this.startedAt);
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
      decorate: (service) => this.naming.decorate(service),
    });
  }

  #newFeed(config: Config): CatalogueFeed {
    return new CatalogueFeed(this.#newKnowledge(config), {
      publish: (delta) => this.workers.publish(delta),
      restart: () => this.workers.restart(),
      registryLost: (source) => this.#metrics.registryLost(source),
      onBlocked: (reason) => this.readiness.set('catalogue', reason),
      onKnown: () => {
        this.#workers?.catchUp();
        this.#checkWorkers();
      },
    });
  }

  #metricsView() {
    const { ready } = this.readiness;
    const { knowledge, workers, interception, exemptions, observer, certificateExpiresAt } = this;
    return { ready, knowledge, workers, interception, exemptions, observer, certificateExpiresAt };
  }

  #newSuccession(): Succession {
    return new Succession({
      ...{ log: this.#log, poller: this.#poller, program: this.#program, adoptable: this.#notifier.managed },
      config: () => this.#config,
      settings: () => this.#workerSettings(),
      onMetrics: (name, delta) => this.#metrics.worker(name, delta as never),
      onGone: (name) => this.#metrics.leftoverGone(name),
      known: () => this.knowledge.known,
    });
  }

  #startWorkers(succession: Succession): WorkerSet {
    const { daemon } = this.#config;
    return new WorkerSet({
      size: workerCount(this.#config),
      hangTimeoutMs: daemon.hangTimeout,
      heartbeatMs: daemon.heartbeatInterval,
      start: (index, events) => succession.start(index, events),
      known: () => this.knowledge.known,
      full: () => this.#feed.full(),
      settings: () => this.#workerSettings(),
      onAcknowledged: (version) => {
        const snapshot = this.#feed.acknowledged(version);
        if (snapshot === undefined) return;
        this.outages.use(snapshot);
        this.interception.acknowledged(snapshot);
      },
      onBeat: (silentMs) => {
        this.#serving.beat(silentMs, this.#config.daemon.suspendTimeout);
        this.#answerNames();
      },
      onMetrics: (index, delta) => this.#metrics.worker(`worker-${index}`, delta as never),
      onMeasured: (index, vitals) => this.#guard.measured(`worker-${index}`, vitals),
      onOutages: (pid, down) => this.outages.heard(pid, down),
      onTransition: (index, pid, from, to) => {
        this.#log.info({ worker: index, pid, from, to }, `worker: ${from} → ${to}`);
        if (to === 'draining' || to === 'gone') this.outages.gone(pid);
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
      exempt: this.exemptions.callers,
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
    this.#answerNames();
    this.#succession?.changed(workers);
  }

  /** Names resolve also while no worker answers. */
  #answerNames(): void {
    if (this.#stopping !== undefined) return;
    const nobody = this.workers.serving === 0 || this.interception.suspensions.includes('nobody-serves');
    this.naming.standIn(nobody, this.#listeners.all);
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
    this.exemptions.setOnly(next.capture.only);
    this.observer.configure(next);
    this.#guard.configure(next.guard);
    this.#disabled.configure(next.capture.disabledFile);
    await this.#credentials.load(next);
    this.naming.configure(next);
    if (knowledge !== undefined) {
      await this.#feed.replace(knowledge);
      this.naming.follow(knowledge.catalogue);
    }
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
      for (const { worker } of this.leftovers) worker.reopenLogs();
    });
  }

  #watchdog(): void {
    const interval = watchdogInterval(process.env, process.pid);
    if (interval === undefined) return;
    // The image before this one asked for more patience.
    if (this.#inherited !== undefined) this.#notifier.patience(interval * 2);
    setInterval(() => this.#notifier.tell('watchdog'), interval).unref();
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
    this.#disabled.stop();
    this.readiness.set('draining', 'the agent stops');
    this.#notifier.tell('stopping', 'draining');
    const { managed } = this.#notifier;
    // After a start that failed adopted workers go on as they did, and wait for the next attempt.
    const alone = managed && this.#failed;
    if (!alone) await this.interception.withdraw();
    await this.fallback.stop();
    this.naming.standIn(false, []);
    const { drainTimeout } = this.#config.daemon;
    const left = alone ? undefined : drainTimeout;
    const leftovers = this.#succession?.leftovers.leave(left);
    // A service manager leaves the workers alone: they finish by themselves, and the next agent can start meanwhile.
    if (managed) await this.#workers?.leave(left);
    else {
      await this.#workers?.drain(drainTimeout, EXIT_GRACE_MS);
      await this.interception.remove();
    }
    await leftovers;
    this.#succession?.close();
    this.#listeners.close();
    this.#sockets?.close();
    this.exemptions.stop();
    await this.observer.stop();
    this.#poller.close();
    await Promise.all([
      this.knowledge.stop(),
      this.naming.stop(),
      ...this.#servers.map((server) => server.close()),
    ]);
    this.#log.info('stopped');
    this.#log.flush(() => this.#end());
  }
}
