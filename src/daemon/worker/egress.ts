import type { ActiveProbes } from '../../balance/active-probes.ts';
import { Balancer } from '../../balance/balancer.ts';
import type { Outages } from '../../balance/outages.ts';
import type { SourcePorts } from '../../caller/source-ports.ts';
import { HttpOutbound } from '../../http/http-outbound.ts';
import type { Poller } from '../../io/poller.ts';
import { type Endpoint, parseEndpoint } from '../../model/address.ts';
import type { ServicePolicy } from '../../model/policy.ts';
import type { RequestSink } from '../../model/request.ts';
import type { NodeName, ServiceName } from '../../model/service.ts';
import { type Claim, emptySnapshot, type Snapshot } from '../../model/snapshot.ts';
import type { AdmittedDelivery } from '../../proxy/admitted-delivery.ts';
import { CallerDesk } from '../../proxy/caller-desk.ts';
import type { Connections } from '../../proxy/connections.ts';
import { ExemptCallers } from '../../proxy/exempt-callers.ts';
import type { Detected } from '../../proxy/opening-dependencies.ts';
import { Outbound } from '../../proxy/outbound.ts';
import type { SearchDependencies } from '../../proxy/outbound-dependencies.ts';
import { Paths } from '../../proxy/paths.ts';
import { serviceNamed } from '../../route/by-name.ts';
import { lookup } from '../../route/lookup.ts';
import type { Log } from '../../telemetry/log.ts';
import type { TunnelTarget } from '../../tunnel/dial.ts';
import type { OpenRequest } from '../../tunnel/open-request.ts';
import type { TunnelStream } from '../../tunnel/stream.ts';
import { Gateways } from '../../zone/gateways.ts';
import type { WorkerListing, WorkerSettings } from '../control/messages.ts';
import type { WorkerEvent } from '../events.ts';
import { CallerSource, callerLimit } from './callers.ts';
import { ExplicitWay } from './explicit-way.ts';
import type { LastLeg } from './last-leg.ts';
import type { OwnListenerSet } from './own-listeners.ts';
import { workerProtocols } from './protocols.ts';
import { WorkerLimits } from './worker-limits.ts';
import type { WorkerMetrics } from './worker-metrics.ts';
import { workerOutages } from './worker-outages.ts';
import { workerProbes } from './worker-probes.ts';

interface EgressOptions {
  readonly log: Log;
  readonly poller: Poller;
  readonly metrics: WorkerMetrics;
  readonly connections: Connections;
  readonly own: OwnListenerSet;
  readonly lastLeg: LastLeg;
  /** To instances of this host. */
  readonly admitted: AdmittedDelivery;
  /** Is told of every request of HTTP. */
  readonly requests: RequestSink;
  settings(): WorkerSettings;
  /** What operators say of a service, as of now; the same object for as long as it is in use. */
  policy(service: ServiceName): ServicePolicy;
  /** Whether policies ask who calls. */
  needsNames(): boolean;
  /** Through the tunnel to another agent; undefined while this node has no certificate. */
  openStream(target: TunnelTarget, request: OpenRequest): TunnelStream | undefined;
  /** What cannot be reached at all is now this. */
  onOutages(down: readonly Claim[]): void;
  /** Something that somebody may want to be told about. */
  onEvent(event: WorkerEvent): void;
}

/** The way out of this host: who calls, what that means, which instance is picked, and how it is reached. */
export class Egress {
  readonly outbound: Outbound;
  readonly paths: Paths;
  readonly gateways: Gateways;
  readonly #options: EgressOptions;
  readonly #balancer: Balancer;
  readonly #outages: Outages;
  readonly #probes: ActiveProbes;
  readonly #callers: CallerSource;
  readonly #exempt = new ExemptCallers();
  readonly #http: HttpOutbound;
  readonly #limits: WorkerLimits;
  #snapshot: Snapshot = emptySnapshot;

  constructor(options: EgressOptions) {
    this.#options = options;
    const { log, metrics } = options;
    const settings = options.settings();
    this.#limits = new WorkerLimits(options);
    this.#balancer = new Balancer({
      ...balancerSettings(settings),
      policy: options.policy,
      onTransition: (transition) => {
        metrics.health(transition);
        const { service, instance, from, to, reason } = transition;
        log.info({ service, instance, from, to, reason }, `instance: ${from} → ${to}`);
        options.onEvent({ kind: 'ejection', service, instance, text: `${from} → ${to} (${reason})` });
      },
      onForgotten: (service) => metrics.forgotten(service),
      onUse: (service) => this.#probes.inUse(service),
    });
    const { backoffBase, backoffMax } = settings.config.tunnel;
    this.gateways = new Gateways({
      backoff: { base: backoffBase, max: backoffMax },
      onTransition: (transition) => log.info({ ...transition }, `gateway: ${transition.to}`),
    });
    this.gateways.configure(zonesOf(settings));
    this.#exempt.configure(settings.exempt);
    this.paths = this.#makePaths();
    this.#callers = new CallerSource(log);
    this.#outages = this.#makeOutages();
    this.#probes = this.#makeProbes();
    const search = this.#searchDependencies();
    this.#http = new HttpOutbound({
      ...search,
      node: settings.node,
      requests: options.requests,
      limits: this.#limits,
      reusing: (service, instance) => this.#balancer.started(service, instance),
      isWay: (service, instance, path) => this.paths.wayTo(service, instance).path === path,
      mayReuse: (service, instance, origin) => this.paths.mayReuse(service, instance, origin),
      direct: (endpoint) => options.lastLeg.direct(endpoint),
      shared: {
        route: (destination) => lookup(this.#snapshot, destination, options.own),
        named: (services, host) => serviceNamed(services, host, this.#config.names.domain),
      },
      explicit: new ExplicitWay(options.settings, () => this.#snapshot, options.own),
    });
    this.outbound = this.#makeOutbound(search);
  }

  /** What cannot be reached at all. */
  get down(): readonly Claim[] {
    return this.#outages.down;
  }

  /** Where it asks which ports callers really have. */
  get sourcePorts(): SourcePorts {
    return this.#callers.sourcePorts;
  }

  configure(settings: WorkerSettings): void {
    this.#balancer.configure(balancerSettings(settings));
    this.gateways.configure(zonesOf(settings));
    this.#exempt.configure(settings.exempt);
  }

  use(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    this.#balancer.use(snapshot);
    this.#outages.use(snapshot);
    this.#probes.use(snapshot);
    this.#http.use(snapshot);
  }

  /** Breakers that have refused nothing for a while close, and services that are gone are forgotten. */
  calm(): void {
    this.#limits.services.sweep((service) => this.#snapshot.services.has(service));
  }

  /** Policies have changed. */
  usePolicies(): void {
    this.#balancer.usePolicies();
    this.#probes.usePolicies();
    this.#http.usePolicies();
  }

  /** What this worker knows of the instances that it has used; for people. */
  instances(limit: number): WorkerListing {
    const items: unknown[] = [];
    let total = 0;
    for (const [service, views] of this.#balancer.views()) {
      total += views.length;
      for (const view of views) if (items.length < limit) items.push({ service, ...view });
    }
    return { items, total };
  }

  /** Looks around for callers now, so that the first of them find their names known. */
  lookAround(): void {
    this.#callers.current(this.#config.caller);
  }

  /** Nothing is probed any more. Connections that live go on; those for requests end with the one they have. */
  drain(): void {
    this.#outages.stop();
    this.#probes.stop();
    this.#http.drain();
  }

  close(): void {
    this.#callers.close();
  }

  get #config(): WorkerSettings['config'] {
    return this.#options.settings().config;
  }

  /** Undefined where this host calls as no service. */
  #callerService(): ServiceName | undefined {
    return this.#config.node.callAs as ServiceName | undefined;
  }

  #makePaths(): Paths {
    const { lastLeg, settings, openStream } = this.#options;
    return new Paths({
      node: settings().node,
      zone: () => this.#config.node.zone,
      snapshot: () => this.#snapshot,
      policy: this.#options.policy,
      callerService: () => this.#callerService(),
      maxHops: () => this.#config.zoneAgent.maxHops,
      agentPatience: () => this.#config.balance.agentPatience,
      gateways: this.gateways,
      delivery: lastLeg.delivery,
      admitted: this.#options.admitted,
      openStream,
    });
  }

  #makeOutages(): Outages {
    const { log, poller, metrics, onOutages } = this.#options;
    return workerOutages({
      log,
      open: (service, instance, origin) => this.paths.open(service, instance, origin),
      past: (service, instance, origin) => this.paths.past(service, instance, origin),
      started: (service, instance) => this.#balancer.started(service, instance),
      after: (milliseconds, expired) => poller.deadlines.after(milliseconds, expired),
      settings: () => this.#config.balance,
      interval: () => this.#config.balance.probeInterval,
      onChange: onOutages,
      probed: (service, outcome) => metrics.probed(service, outcome),
    });
  }

  #makeProbes(): ActiveProbes {
    const { poller, metrics, policy } = this.#options;
    return workerProbes({
      policy: (service) => policy(service).probe,
      open: (service, instance, origin) => this.paths.open(service, instance, origin),
      past: (service, instance, origin) => this.paths.past(service, instance, origin),
      after: (milliseconds, expired) => poller.deadlines.after(milliseconds, expired),
      settings: () => this.#config.balance,
      report: (service, instance, healthy) => this.#balancer.probed(service, instance, healthy),
      release: (service) => this.#balancer.release(service),
      probed: (service, outcome) => metrics.probed(service, outcome),
    });
  }

  #searchDependencies(): SearchDependencies {
    const { poller, metrics } = this.#options;
    return {
      pick: (service, exclude, choice) => this.#balancer.pick(service, exclude, choice),
      started: (service, instance, path, attempt) =>
        metrics.observed(service.name, path, attempt, this.#balancer.started(service, instance)),
      open: (service, instance, origin) => this.paths.open(service, instance, origin),
      past: (service, instance, origin) => this.paths.past(service, instance, origin),
      reached: (service, instance) => this.#outages.reached(service.name, instance.id),
      unreached: (service, tried, only) => this.#outages.unreached(service, tried, only),
      after: (milliseconds, expired) => poller.deadlines.after(milliseconds, expired),
      settings: () => this.#config.balance,
      policy: this.#options.policy,
      breaker: (service) => this.#limits.services.breaker(service),
      overRate: (entry) => this.#limits.overRate(entry),
    };
  }

  #makeOutbound(search: SearchDependencies): Outbound {
    const { log, metrics, own, lastLeg, settings, connections } = this.#options;
    const desk = new CallerDesk({
      identifier: () => this.#callers.current(this.#config.caller),
      most: () => callerLimit(this.#config.limits),
      onRefused: (caller) => metrics.refusedCaller(caller),
    });
    const detection = {
      detection: () => this.#config.detection,
      detected: (what: Detected) => metrics.detected(what),
    };
    return new Outbound(
      {
        ...search,
        route: (destination) => lookup(this.#snapshot, destination, own),
        direct: (endpoint: Endpoint) => lastLeg.direct(endpoint),
        ...detection,
        protocols: workerProtocols({
          ...{ log, search, detection, http: this.#http, redis: metrics.redis },
          slow: () => this.#config.redis.slow,
        }),
        httpAt: (...connection) => this.#http.acceptShared(...connection),
        named: (services, name) => serviceNamed(services, name, this.#config.names.domain),
        explicit: (client, entry, origin) => this.#http.acceptExplicit(client, entry, origin),
        callerNode: settings().node,
        callerService: () => this.#callerService(),
        admit: (entry, from, to, listener) => desk.admit(entry, from, to, listener),
        exempt: (entry) => this.#exempt.includes(entry),
        needsNames: this.#options.needsNames,
      },
      connections,
    );
  }
}

function balancerSettings({ config, node }: WorkerSettings) {
  return {
    locality: { node, zone: config.node.zone, otherZones: config.zones.map(({ name }) => name) },
    ejection: config.balance,
  };
}

function zonesOf({ config }: WorkerSettings) {
  return config.zones.map(({ name, gateways }) => ({
    zone: name,
    gateways: gateways.map((gateway) => ({
      node: gateway.node as NodeName,
      address: parseEndpoint(gateway.address)!,
    })),
  }));
}
