import { Balancer } from '../../balance/balancer.ts';
import type { Outages } from '../../balance/outages.ts';
import type { SourcePorts } from '../../caller/source-ports.ts';
import { Heartbeat } from '../../capture/heartbeat.ts';
import { TcpListener } from '../../io/listener.ts';
import { interceptionOf } from '../../io/original-destination.ts';
import { Poller } from '../../io/poller.ts';
import type { TcpChannel } from '../../io/socket.ts';
import { type ClientAddress, type Endpoint, type Ip, parseEndpoint } from '../../model/address.ts';
import { selfTestAddress } from '../../model/self-test.ts';
import type { NodeName, ServiceName } from '../../model/service.ts';
import { type Claim, emptySnapshot, type Snapshot } from '../../model/snapshot.ts';
import { NameIndex } from '../../naming/name-index.ts';
import { NameResponder } from '../../naming/responder.ts';
import { CallerDesk } from '../../proxy/caller-desk.ts';
import { Connections } from '../../proxy/connections.ts';
import { ExemptCallers } from '../../proxy/exempt-callers.ts';
import { Inbound } from '../../proxy/inbound.ts';
import { Outbound } from '../../proxy/outbound.ts';
import { Paths } from '../../proxy/paths.ts';
import { SelfTestResponder } from '../../proxy/self-test.ts';
import { ZoneRelay } from '../../proxy/zone-relay.ts';
import { lookup } from '../../route/lookup.ts';
import { AccessLog } from '../../telemetry/access-log.ts';
import type { MetricsDelta } from '../../telemetry/counters.ts';
import type { Log } from '../../telemetry/log.ts';
import { Gateways } from '../../zone/gateways.ts';
import { judgeRelay } from '../../zone/relay-request.ts';
import type { WorkerList, WorkerListing, WorkerSettings } from '../control/messages.ts';
import { descriptorShortage, VitalCounts, type Vitals } from '../guard/vitals.ts';
import { LastLeg } from '../succession/last-leg.ts';
import { LISTEN_BACKLOG, type Listener } from '../succession/listeners.ts';
import { CallerSource, callerLimit } from './callers.ts';
import { OwnListenerSet } from './own-listeners.ts';
import { Tunnels } from './tunnels.ts';
import type { DataPlane } from './worker.ts';
import { WorkerMetrics } from './worker-metrics.ts';
import { workerOutages } from './worker-outages.ts';

/** What a worker is born with. */
export interface DataPlaneOptions {
  readonly index: number;
  readonly listeners: readonly Listener[];
  /** Drawn once for each start of the agent. */
  readonly epoch: bigint;
  readonly log: Log;
}

/** The composition root of a worker: everything that carries bytes, wired together. */
export class NodeDataPlane implements DataPlane {
  readonly vitals = new VitalCounts();
  readonly #options: DataPlaneOptions;
  readonly #poller = new Poller();
  readonly #metrics: WorkerMetrics;
  readonly #accessLog: AccessLog;
  readonly #connections: Connections;
  readonly #balancer: Balancer;
  readonly #gateways: Gateways;
  readonly #lastLeg: LastLeg;
  readonly #outages: Outages;
  #onOutages: (down: readonly Claim[]) => void = () => {};
  readonly #outbound: Outbound;
  readonly #tunnels: Tunnels;
  readonly #callers: CallerSource;
  readonly #exempt = new ExemptCallers();
  readonly #captures: TcpListener[] = [];
  readonly #names: NameResponder;
  readonly #heartbeat: Heartbeat;
  readonly #sweep: NodeJS.Timeout;
  readonly #selfTest = new SelfTestResponder((ms, expired) => this.#poller.deadlines.after(ms, expired));
  #selfTestAddresses: ReadonlySet<Ip>;
  #settings: WorkerSettings;
  #snapshot: Snapshot = emptySnapshot;

  constructor(settings: WorkerSettings, options: DataPlaneOptions) {
    this.#settings = settings;
    this.#selfTestAddresses = selfTestAddressesOf(settings);
    this.#options = options;
    const { config, node } = settings;
    const { log } = options;
    this.#metrics = new WorkerMetrics(`worker-${options.index}`);
    this.#accessLog = new AccessLog({
      target: config.telemetry.accessLog,
      bufferBytes: config.telemetry.accessLogBuffer,
      onFailure: (reason) => log.warn({ reason }, 'access log'),
      onDropped: (lines) => this.#metrics.accessLogDropped(lines),
    });
    this.#connections = new Connections(String(process.pid), {
      started: (direction) => this.#metrics.connections.started(direction),
      ended: (record) => {
        this.#metrics.connections.ended(record);
        this.vitals.ended(record);
        this.#accessLog.write(record);
      },
    });
    this.#balancer = new Balancer({
      ...balancerSettings(settings),
      onTransition: (transition) => {
        this.#metrics.health(transition);
        const { service, instance, from, to } = transition;
        log.info({ service, instance, from, to }, `instance: ${from} → ${to}`);
      },
    });
    this.#gateways = new Gateways({
      backoff: { base: config.tunnel.backoffBase, max: config.tunnel.backoffMax },
      onTransition: (transition) => log.info({ ...transition }, `gateway: ${transition.to}`),
    });
    this.#gateways.configure(zonesOf(settings));
    this.#exempt.configure(settings.exempt);
    const own = new OwnListenerSet(options.listeners.map(({ port }) => port));
    this.#lastLeg = new LastLeg(
      this.#poller,
      () => this.#settings,
      (ip) => own.isOwnAddress(ip),
    );
    const { delivery } = this.#lastLeg;
    const direct = (endpoint: Endpoint) => this.#lastLeg.direct(endpoint);
    const snapshot = () => this.#snapshot;
    const callerService = () => this.#settings.config.node.callAs as ServiceName | undefined;
    const paths = new Paths({
      node,
      zone: () => this.#settings.config.node.zone,
      snapshot,
      callerService,
      maxHops: () => this.#settings.config.zoneAgent.maxHops,
      agentPatience: () => this.#settings.config.balance.agentPatience,
      gateways: this.#gateways,
      delivery,
      openStream: (target, request) => this.#tunnels.open(target, request),
    });
    this.#callers = new CallerSource(log);
    const desk = new CallerDesk({
      identifier: () => this.#callers.current(this.#settings.config.caller),
      most: () => callerLimit(this.#settings.config.limits),
      onRefused: (caller) => this.#metrics.refusedCaller(caller),
    });
    this.#outages = workerOutages({
      log,
      open: (service, instance, origin) => paths.open(service, instance, origin),
      past: (service, instance, origin) => paths.past(service, instance, origin),
      started: (service, instance) => this.#balancer.started(service, instance),
      after: (milliseconds, expired) => this.#poller.deadlines.after(milliseconds, expired),
      settings: () => this.#settings.config.balance,
      interval: () => this.#settings.config.balance.probeInterval,
      onChange: (down) => this.#onOutages(down),
      probed: (outcome) => this.#metrics.probed(outcome),
    });
    this.#outbound = new Outbound(
      {
        route: (destination) => lookup(this.#snapshot, destination, own),
        pick: (service, exclude) => this.#balancer.pick(service, exclude),
        started: (service, instance, path, attempt) =>
          this.#metrics.observed(service.name, path, attempt, this.#balancer.started(service, instance)),
        open: (service, instance, origin) => paths.open(service, instance, origin),
        past: (service, instance, origin) => paths.past(service, instance, origin),
        reached: (service, instance) => this.#outages.reached(service.name, instance.id),
        unreached: (service, tried, only) => this.#outages.unreached(service, tried, only),
        direct,
        after: (milliseconds, expired) => this.#poller.deadlines.after(milliseconds, expired),
        callerNode: node,
        callerService,
        admit: (entry, from, to, listener) => desk.admit(entry, from, to, listener),
        exempt: (entry) => this.#exempt.includes(entry),
        settings: () => this.#settings.config.balance,
      },
      this.#connections,
    );
    const inbound = new Inbound({ snapshot, delivery, node }, this.#connections);
    const relay = new ZoneRelay(
      {
        node,
        decide: (request, peer) =>
          judgeRelay(request, peer, {
            node,
            zone: this.#settings.config.node.zone,
            maxHops: this.#settings.config.zoneAgent.maxHops,
            findNode: (name) => this.#snapshot.nodes.get(name),
            reaches: (zone) => this.#gateways.has(zone),
          }),
        deliver: (target) => direct(target.tunnel),
        forward: (_zone, request) => paths.relays(request),
        maxStreams: () => this.#settings.config.zoneAgent.maxRelayStreams,
      },
      this.#connections,
    );
    this.#tunnels = new Tunnels({
      settings: config.tunnel,
      poller: this.#poller,
      log,
      epoch: options.epoch,
      listeners: options.listeners.filter(({ kind }) => kind === 'tunnel'),
      metrics: this.#metrics,
      service: (request, stream, peer, from) => inbound.accept(request, stream, peer, from),
      relay: settings.relay
        ? (request, stream, peer, from) => relay.accept(request, stream, peer, from)
        : undefined,
    });
    this.#heartbeat = new Heartbeat({
      port: config.capture.port,
      runtimeDirectory: config.daemon.runtimeDirectory,
      onFailure: (reason) => log.warn({ reason }, 'sign of life'),
    });
    const index = new NameIndex();
    this.#names = new NameResponder({
      names: () => {
        const { domain, ttl } = this.#settings.config.names;
        return { domain, ttlMs: ttl, snapshot: this.#snapshot, index };
      },
      answered: (transport, code) => this.#metrics.nameAnswered(transport, code),
      failed: (error) => log.warn({ error }, 'names: a socket failed'),
    });
    this.#useCredentials();
    this.#sweep = setInterval(() => this.#connections.sweep(), config.limits.halfClosedIdle);
  }

  configure(settings: WorkerSettings): void {
    this.#settings = settings;
    this.#selfTestAddresses = selfTestAddressesOf(settings);
    this.#options.log.level = settings.config.telemetry.logLevel;
    this.#balancer.configure(balancerSettings(settings));
    this.#gateways.configure(zonesOf(settings));
    this.#exempt.configure(settings.exempt);
    this.#useCredentials();
  }

  use(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    this.#balancer.use(snapshot);
    this.#outages.use(snapshot);
  }

  get sourcePorts(): SourcePorts {
    return this.#callers.sourcePorts;
  }

  followOutages(listener: (down: readonly Claim[]) => void): void {
    this.#onOutages = listener;
    listener(this.#outages.down);
  }

  serve(): void {
    if (this.#captures.length > 0) return;
    const { limits } = this.#settings.config;
    for (const listener of this.#options.listeners) {
      if (listener.kind !== 'capture') continue;
      const capture = new TcpListener(this.#poller, listener.fd, {
        acceptBatch: limits.acceptBatch,
        keepalive: { idleMs: limits.keepaliveIdle },
        onConnection: (channel) => this.#captured(channel, listener),
        onRejected: () => this.#rejected(),
      });
      this.#captures.push(capture);
    }
    // Looks around now, so that the first callers find their names known.
    if (this.#captures.length > 0) this.#callers.current(this.#settings.config.caller);
    this.#names.serve(this.#options.listeners);
    this.#tunnels.serve();
    this.#heartbeat.start();
  }

  measured(vitals: Vitals): void {
    this.#metrics.measured(vitals);
    if (this.#captures.length === 0) return;
    // The kernel is told as well: the supervisor, which would withdraw, may be gone.
    const shortage = descriptorShortage(vitals, this.#settings.config.guard);
    if (shortage === 'short') this.#heartbeat.stop();
    else if (shortage === 'none') this.#heartbeat.start();
  }

  list(list: WorkerList, limit: number): WorkerListing {
    if (list === 'connections') {
      return { items: this.#connections.list(limit), total: this.#connections.size };
    }
    const tunnels = this.#tunnels.list();
    return { items: tunnels.slice(0, limit), total: tunnels.length };
  }

  metrics(): MetricsDelta {
    return this.#metrics.drain(this.#tunnels.list());
  }

  reopenLogs(): void {
    this.#accessLog.reopen();
  }

  /**
   * Peers are told to go elsewhere, and live connections finish. The capture port is still served meanwhile: the rules
   * are withdrawn by now, and what waits in its queue was there before. With `letGo` what waits there now is taken, for
   * nobody else may come for it, and nothing after that: the ports are for other processes.
   */
  async drain(timeoutMs: number, letGo: boolean): Promise<number> {
    clearInterval(this.#sweep);
    this.#heartbeat.stop();
    this.#names.close();
    this.#outages.stop();
    this.#tunnels.drain();
    if (letGo) {
      for (const capture of this.#captures) capture.takeWaiting(LISTEN_BACKLOG);
      this.#stopCapturing();
    }
    const cut = await this.#connections.drained(timeoutMs);
    this.#stopCapturing();
    this.#tunnels.close();
    this.#lastLeg.close();
    this.#callers.close();
    await this.#accessLog.close();
    return cut;
  }

  cut(): void {
    this.#connections.cut();
  }

  #stopCapturing(): void {
    for (const capture of this.#captures.splice(0)) capture.close();
  }

  #rejected(): void {
    this.vitals.taken++;
    this.vitals.failed++;
    this.#metrics.acceptRejected();
  }

  #captured(channel: TcpChannel, listener: Listener): void {
    this.vitals.taken++;
    const remote = channel.remoteEndpoint;
    if (remote === undefined) {
      channel.reset();
      return;
    }
    const interception = interceptionOf(channel, listener.port);
    const destination = interception.kind === 'redirected' ? interception.destination : undefined;
    if (this.#connections.size >= this.#settings.config.limits.connections) {
      this.#metrics.refusedAtLimit();
      this.vitals.failed++;
      this.#outbound.refuse(channel, remote as ClientAddress, destination ?? listener);
      return;
    }
    if (destination !== undefined && this.#selfTestAddresses.has(destination.ip)) {
      this.#selfTest.accept(channel);
      return;
    }
    this.#outbound.accept(channel, remote as ClientAddress, destination, listener);
  }

  #useCredentials(): void {
    const { credentials, config, node } = this.#settings;
    if (credentials === undefined) return;
    try {
      this.#tunnels.use(credentials, { trustDomain: config.identity.trustDomain, node });
    } catch (error) {
      // Permissive services are reached directly then; a worker that died over it would take everybody along.
      this.#options.log.error({ error }, 'identity: the certificate cannot be used');
    }
  }
}

function balancerSettings({ config, node }: WorkerSettings) {
  return {
    locality: { node, zone: config.node.zone, otherZones: config.zones.map(({ name }) => name) },
    ejection: config.balance,
  };
}

function selfTestAddressesOf({ config: { names } }: WorkerSettings): ReadonlySet<Ip> {
  return new Set([names.ipv4, names.ipv6].flatMap((network) => selfTestAddress(network) ?? []));
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
