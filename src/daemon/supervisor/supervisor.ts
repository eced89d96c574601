import type { GuardStatus, ReloadAnswer } from '../../admin/api.ts';
import type { Config } from '../../config/schema.ts';
import { clearAmbientCapabilities } from '../../io/capabilities.ts';
import { raiseDescriptorLimit } from '../../io/descriptors.ts';
import { ServiceNotifier } from '../../io/notify.ts';
import { Poller } from '../../io/poller.ts';
import { MeshError } from '../../model/errors.ts';
import type { NodeName } from '../../model/service.ts';
import { ThreadedReader } from '../../policy/reader.ts';
import { createLog, type Log } from '../../telemetry/log.ts';
import type { WorkerSettings } from '../control/messages.ts';
import { EventLog } from '../events.ts';
import { GuardDriver } from '../guard/guard-driver.ts';
import { makeDirectories, nodeName } from '../host.ts';
import type { FallbackFiles } from '../interception/fallback-files.ts';
import type { InterceptionDriver } from '../interception/interception-driver.ts';
import { ServingWatch } from '../interception/serving-watch.ts';
import { Handover } from '../succession/handover.ts';
import type { Leftover } from '../succession/leftovers.ts';
import type { Succession } from '../succession/succession.ts';
import type { CommandLines, UpgradeStep } from '../succession/upgrade.ts';
import type { WorkerSet } from '../workers/worker-set.ts';
import type { AdminView } from './admin-backend.ts';
import { CatalogueFeed } from './catalogue-feed.ts';
import type { ExemptionWatch } from './exemptions.ts';
import { HostCapture } from './host-capture.ts';
import { Knowledge } from './knowledge.ts';
import { Naming } from './naming.ts';
import type { Observer } from './observer.ts';
import { HostOutages } from './outages.ts';
import { OwnCredentials } from './own-credentials.ts';
import { PolicyFeed } from './policy-feed.ts';
import { PolicyStore } from './policy-store.ts';
import { dropRoot } from './privileges.ts';
import { Readiness } from './readiness.ts';
import type { ReloadScope } from './reload-scope.ts';
import { Reloader } from './reloader.ts';
import { Servers } from './servers.ts';
import { feedWatchdog, handleSignals } from './service-manager.ts';
import { SupervisorMetrics } from './supervisor-metrics.ts';
import { TransparentDemand } from './transparent-demand.ts';
import { TransparentSockets, transparentSocketPath } from './transparent-sockets.ts';
import { Workforce } from './workforce.ts';

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
  readonly version: string;
  readonly role: 'node' | 'zone-agent';
  readonly node: NodeName;
  readonly startedAt = Date.now();
  readonly readiness: Readiness;
  readonly interception: InterceptionDriver;
  readonly exemptions: ExemptionWatch;
  readonly observer: Observer;
  readonly fallback: FallbackFiles;
  readonly naming: Naming;
  readonly outages: HostOutages;
  readonly policies: PolicyFeed;
  readonly events = new EventLog();
  readonly #log: Log;
  readonly #notifier = new ServiceNotifier(process.env['NOTIFY_SOCKET']);
  readonly #metrics: SupervisorMetrics;
  readonly #credentials: OwnCredentials;
  readonly #handover: Handover;
  readonly #feed: CatalogueFeed;
  readonly #capture: HostCapture;
  readonly #serving: ServingWatch;
  readonly #guard: GuardDriver;
  readonly #reloader: Reloader;
  readonly #servers: Servers;
  readonly #ended: Promise<void>;
  #end: () => void = () => {};
  #workforce: Workforce | undefined;
  /** Watches descriptors that Node's own modules cannot; open for as long as the agent runs. */
  readonly #poller = new Poller();
  readonly #transparent: TransparentDemand;
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
    this.#handover = this.#newHandover(options.commandLines);
    this.version = this.#handover.version;
    this.#credentials = new OwnCredentials(this.node, this.#log);
    this.#metrics = new SupervisorMetrics(this.version);
    this.readiness = new Readiness(['workers', 'catalogue', 'interception'], (ready) =>
      this.#log.info({ ready, blockers: this.readiness.list }, ready ? 'ready' : 'not ready'),
    );
    makeDirectories(config);
    this.naming = new Naming(config, this.#log);
    this.#feed = this.#newFeed(config);
    this.policies = this.#newPolicies(config);
    this.#capture = new HostCapture(config, {
      ...{ log: this.#log, poller: this.#poller, naming: this.naming },
      onHealth: (problem) => {
        this.readiness.set('interception', problem);
        this.#tellReady();
      },
      onApplied: (version) => this.#feed.applied(version),
      callersChanged: () => this.#workforce?.workers.configure(this.#workerSettings()),
    });
    this.interception = this.#capture.interception;
    this.exemptions = this.#capture.exemptions;
    this.observer = this.#capture.observer;
    this.fallback = this.#capture.fallback;
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
    this.#servers = new Servers(this, this.#metrics);
    const path = transparentSocketPath(config.daemon.runtimeDirectory);
    this.#transparent = new TransparentDemand(
      this.node,
      () => new TransparentSockets(this.#poller, path, this.#log),
      this.#log,
    );
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
    if (this.#workforce === undefined)
      throw new MeshError('system', 'agent', 'the workers are not started yet');
    return this.#workforce.workers;
  }

  get leftovers(): Iterable<Leftover> {
    return this.#handover.leftovers;
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
    feedWatchdog(this.#notifier, this.#handover.upgraded);
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
      await this.#handover.fallBack(error);
      this.#failed = true;
      await this.#stop();
      throw error;
    }
    await this.#ended;
  }

  /** Everything that has to happen until the agent serves, in order. */
  #startUp(): readonly (() => Promise<void> | void)[] {
    const config = this.#config;
    return [
      () => this.#handover.begin(),
      () => this.#credentials.load(this.#config),
      () => this.naming.load(),
      () => this.knowledge.load(),
      () => this.policies.start(),
      () => this.#transparent.follow(this.knowledge.catalogue),
      () => this.#handover.gather(),
      () => {
        this.#workforce = this.#newWorkforce(this.#handover.succession);
        this.#workforce.check(); // those that were adopted serve already
      },
      () => this.#servers.serveAdmin(config),
      () => this.#servers.serveMetrics(config),
      ...this.#capture.startUp(() => this.#config),
      () => this.naming.follow(this.knowledge.catalogue),
      () => this.#feed.follow(),
    ];
  }

  async reload(): Promise<ReloadAnswer> {
    this.#notifier.tell('reloading');
    await this.policies.reload();
    return await this.#reloader.reload().finally(() => this.#tellReady());
  }

  upgrade(): Promise<UpgradeStep> {
    if (this.#stopping !== undefined) throw new MeshError('draining', 'agent', 'the agent stops');
    return this.#handover.prepareUpgrade(this.startedAt);
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
        this.#workforce?.workers.catchUp();
        this.#workforce?.check();
      },
    });
  }

  #newPolicies({ policies: { directory }, daemon: { stateDirectory } }: Config): PolicyFeed {
    const log = this.#log.child({ component: 'policies' });
    return new PolicyFeed({
      ...{ directory, log, reader: new ThreadedReader(), store: new PolicyStore(stateDirectory, log) },
      publish: (policies) => {
        this.#workforce?.workers.usePolicies(policies);
        for (const { worker } of this.leftovers) worker.usePolicies(policies);
      },
      onEvent: (text) => this.events.add('supervisor', { kind: 'policy', text }),
      onBlocked: (reason) => this.readiness.set('policies', reason),
    });
  }

  #newHandover(lines: CommandLines): Handover {
    return new Handover({
      ...{ log: this.#log, poller: this.#poller, notifier: this.#notifier, lines },
      config: () => this.#config,
      settings: () => this.#workerSettings(),
      workers: () => this.#workforce?.workers ?? [],
      known: () => this.knowledge.known,
      onMetrics: (name, delta) => this.#metrics.worker(name, delta),
      onGone: (name) => this.#metrics.leftoverGone(name),
      goOn: () => this.#tellReady(),
    });
  }

  #newWorkforce(succession: Succession): Workforce {
    const { naming, interception, outages, events } = this;
    return new Workforce({
      ...{
        log: this.#log,
        metrics: this.#metrics,
        feed: this.#feed,
        guard: this.#guard,
        serving: this.#serving,
      },
      ...{ naming, interception, outages, events, succession },
      listeners: this.#handover.listeners,
      config: () => this.#config,
      settings: () => this.#workerSettings(),
      policies: () => this.policies.current,
      stopping: () => this.#stopping !== undefined,
      onServing: (serving, size) => {
        this.readiness.set('workers', serving === 0 ? `0 of ${size} serve` : undefined);
        this.#tellReady();
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
    this.#capture.configure(next);
    this.#guard.configure(next.guard);
    await this.#credentials.load(next);
    this.naming.configure(next);
    if (knowledge !== undefined) {
      await this.#feed.replace(knowledge);
      this.naming.follow(knowledge.catalogue);
      this.#transparent.follow(knowledge.catalogue);
    }
    this.workers.configure(this.#workerSettings());
  }

  #handleSignals(): void {
    handleSignals({
      stop: () => void this.#stop(),
      reload: () => {
        this.reload().catch(() => undefined); // it was logged, and the old configuration stays
      },
      reopenLogs: () => {
        for (const worker of this.#workforce?.workers ?? []) worker.reopenLogs();
        for (const { worker } of this.leftovers) worker.reopenLogs();
      },
    });
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
    this.#capture.disregardFile();
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
    const leftovers = this.#handover.leave(left);
    // A service manager leaves the workers alone: they finish by themselves, and the next agent can start meanwhile.
    if (managed) await this.#workforce?.workers.leave(left);
    else {
      await this.#workforce?.workers.drain(drainTimeout, EXIT_GRACE_MS);
      await this.interception.remove();
    }
    await leftovers;
    this.#handover.close();
    this.#transparent.close();
    await this.#capture.close();
    this.#poller.close();
    await Promise.all([
      this.knowledge.stop(),
      this.naming.stop(),
      this.policies.stop(),
      this.#servers.close(),
    ]);
    this.#log.info('stopped');
    this.#log.flush(() => this.#end());
  }
}
