import { AccessControl } from '../../access/access-control.ts';
import type { SourcePorts } from '../../caller/source-ports.ts';
import { Heartbeat } from '../../capture/heartbeat.ts';
import { RequestGuard } from '../../http/request-guard.ts';
import { Poller } from '../../io/poller.ts';
import { emptyPolicySet, Policies, type ServicePolicy } from '../../model/policy.ts';
import type { RequestSink } from '../../model/request.ts';
import type { ServiceName } from '../../model/service.ts';
import { type Claim, emptySnapshot, type Snapshot } from '../../model/snapshot.ts';
import { NameIndex } from '../../naming/name-index.ts';
import { NameResponder } from '../../naming/responder.ts';
import { AccessRecheck } from '../../proxy/access-recheck.ts';
import { AdmittedDelivery } from '../../proxy/admitted-delivery.ts';
import { Connections } from '../../proxy/connections.ts';
import { Inbound } from '../../proxy/inbound.ts';
import { ZoneRelay } from '../../proxy/zone-relay.ts';
import { AccessLog } from '../../telemetry/access-log.ts';
import type { MetricsDelta } from '../../telemetry/counters.ts';
import type { Log } from '../../telemetry/log.ts';
import { RequestRecorder } from '../../telemetry/request-recorder.ts';
import { judgeRelay } from '../../zone/relay-request.ts';
import type { WorkerList, WorkerListing, WorkerSettings } from '../control/messages.ts';
import type { WorkerEvent } from '../events.ts';
import { descriptorShortage, VitalCounts, type Vitals } from '../guard/vitals.ts';
import type { Listener } from '../succession/listeners.ts';
import { Egress } from './egress.ts';
import { Ended } from './ended.ts';
import { Intake } from './intake.ts';
import { LastLeg } from './last-leg.ts';
import { OwnListenerSet } from './own-listeners.ts';
import { Tunnels } from './tunnels.ts';
import type { DataPlane } from './worker.ts';
import { WorkerMetrics } from './worker-metrics.ts';

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
  readonly #ended = new Ended();
  readonly #connections: Connections;
  readonly #lastLeg: LastLeg;
  readonly #egress: Egress;
  readonly #recheck: AccessRecheck;
  readonly #intake: Intake;
  #onOutages: (down: readonly Claim[]) => void = () => {};
  #onEvent: (event: WorkerEvent) => void = () => {};
  readonly #tunnels: Tunnels;
  readonly #names: NameResponder;
  readonly #heartbeat: Heartbeat;
  readonly #sweep: NodeJS.Timeout;
  #settings: WorkerSettings;
  #snapshot: Snapshot = emptySnapshot;
  #policies = new Policies(emptyPolicySet);

  constructor(settings: WorkerSettings, options: DataPlaneOptions) {
    this.#settings = settings;
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
        this.#ended.connection(record);
      },
    });
    const own = new OwnListenerSet(options.listeners.map(({ port }) => port));
    this.#lastLeg = new LastLeg(
      this.#poller,
      () => this.#settings,
      (ip) => own.isOwnAddress(ip),
    );
    const policy = (service: ServiceName): ServicePolicy => this.#policies.for(service);
    const access = new AccessControl({
      policy,
      decided: (service, action) => this.#metrics.accessDecided(service, action),
    });
    const admitted = new AdmittedDelivery(
      this.#lastLeg.delivery,
      access,
      (channel, service, owner) => new RequestGuard(channel, service, owner),
    );
    this.#recheck = new AccessRecheck({
      ...{ connections: this.#connections, access },
      snapshot: () => this.#snapshot,
    });
    const recorder = new RequestRecorder(
      this.#metrics.requests,
      this.#accessLog,
      () => this.#settings.config.telemetry.accessLogRequests,
    );
    const requests: RequestSink = {
      started: () => recorder.started(),
      ended: (record) => {
        recorder.ended(record);
        this.#ended.request(record);
      },
    };
    this.#egress = new Egress({
      needsNames: () => this.#policies.needNames,
      ...{ log, own, poller: this.#poller, metrics: this.#metrics, connections: this.#connections },
      lastLeg: this.#lastLeg,
      admitted,
      requests,
      settings: () => this.#settings,
      policy,
      openStream: (target, request) => this.#tunnels.open(target, request),
      onOutages: (down) => this.#onOutages(down),
      onEvent: (event) => this.#onEvent(event),
    });
    this.#intake = new Intake({
      ...{ poller: this.#poller, listeners: options.listeners, connections: this.#connections },
      ...{ outbound: this.#egress.outbound, vitals: this.vitals, metrics: this.#metrics },
      settings: () => this.#settings,
    });
    const { delivery } = this.#lastLeg;
    const { paths, gateways } = this.#egress;
    const snapshot = () => this.#snapshot;
    const inbound = new Inbound({ snapshot, delivery, admitted, node }, this.#connections);
    const relay = new ZoneRelay(
      {
        node,
        decide: (request, peer) =>
          judgeRelay(request, peer, {
            node,
            zone: this.#settings.config.node.zone,
            maxHops: this.#settings.config.zoneAgent.maxHops,
            findNode: (name) => this.#snapshot.nodes.get(name),
            reaches: (zone) => gateways.has(zone),
          }),
        deliver: (target) => this.#lastLeg.direct(target.tunnel),
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
    this.#options.log.level = settings.config.telemetry.logLevel;
    this.#egress.configure(settings);
    this.#intake.configure(settings);
    this.#useCredentials();
  }

  use(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    this.#egress.use(snapshot);
  }

  usePolicies(policies: Policies): void {
    this.#policies = policies;
    this.#egress.usePolicies();
    if (policies.decideAccess) this.#recheck.start();
    else this.#recheck.stop();
  }

  get sourcePorts(): SourcePorts {
    return this.#egress.sourcePorts;
  }

  followOutages(listener: (down: readonly Claim[]) => void): void {
    this.#onOutages = listener;
    listener(this.#egress.down);
  }

  followEvents(listener: (event: WorkerEvent) => void): void {
    this.#onEvent = listener;
  }

  serve(): void {
    if (this.#intake.serving) return;
    this.#intake.serve();
    if (this.#intake.serving) this.#egress.lookAround();
    this.#names.serve(this.#options.listeners);
    this.#tunnels.serve();
    this.#heartbeat.start();
  }

  measured(vitals: Vitals): void {
    this.#metrics.measured(vitals);
    if (!this.#intake.serving) return;
    // The kernel is told as well: the supervisor, which would withdraw, may be gone.
    const shortage = descriptorShortage(vitals, this.#settings.config.guard);
    if (shortage === 'short') this.#heartbeat.stop();
    else if (shortage === 'none') this.#heartbeat.start();
  }

  list(list: WorkerList, limit: number): WorkerListing {
    if (list === 'connections') {
      return { items: this.#connections.list(limit), total: this.#connections.size };
    }
    if (list === 'ended') return { items: this.#ended.list(limit), total: this.#ended.size };
    if (list === 'instances') return this.#egress.instances(limit);
    const tunnels = this.#tunnels.list();
    return { items: tunnels.slice(0, limit), total: tunnels.length };
  }

  metrics(): MetricsDelta {
    // What is shown is what is: breakers that nobody asks close by themselves.
    this.#egress.calm();
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
    this.#recheck.stop();
    this.#heartbeat.stop();
    this.#names.close();
    this.#egress.drain();
    this.#tunnels.drain();
    if (letGo) {
      this.#intake.takeWaiting();
      this.#intake.close();
    }
    const cut = await this.#connections.drained(timeoutMs);
    this.#intake.close();
    this.#tunnels.close();
    this.#lastLeg.close();
    this.#egress.close();
    await Promise.all([this.#accessLog.close(), this.#tunnels.gone()]);
    return cut;
  }

  cut(): void {
    this.#connections.cut();
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
