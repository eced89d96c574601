import type {
  AdminBackend,
  ConnectionsAnswer,
  DrainAnswer,
  GuardStatus,
  LiveConnection,
  ObserveAnswer,
  ObserveProposalAnswer,
  ReadyAnswer,
  RegistriesAnswer,
  ReloadAnswer,
  ResolveAnswer,
  ResolveQuestion,
  RulesAnswer,
  ServicesAnswer,
  StatusAnswer,
  TunnelStatus,
  TunnelsAnswer,
} from '../../admin/api.ts';
import type { Config } from '../../config/schema.ts';
import { type OriginalDestination, parseEndpoint } from '../../model/address.ts';
import { callerText } from '../../model/caller.ts';
import { MeshError } from '../../model/errors.ts';
import { type NodeName, parseServiceName } from '../../model/service.ts';
import type { LiveConnection as WorkerConnection } from '../../proxy/connections.ts';
import { lookup } from '../../route/lookup.ts';
import type { FallbackFiles } from '../interception/fallback-files.ts';
import type { InterceptionDriver } from '../interception/interception-driver.ts';
import type { Leftover } from '../succession/leftovers.ts';
import { ownPorts } from '../succession/listeners.ts';
import type { UpgradeStep } from '../succession/upgrade.ts';
import { OwnListenerSet } from '../worker/own-listeners.ts';
import type { TunnelView } from '../worker/tunnel-view.ts';
import type { WorkerSet } from '../workers/worker-set.ts';
import type { ExemptionWatch } from './exemptions.ts';
import type { Knowledge } from './knowledge.ts';
import { observeAnswer, observeProposal } from './observe-view.ts';
import type { Observer } from './observer.ts';
import type { HostOutages } from './outages.ts';
import type { Readiness } from './readiness.ts';

/** The parts of the supervisor that the admin API shows and moves. */
export interface AdminView {
  readonly version: string;
  readonly role: 'node' | 'zone-agent';
  readonly node: NodeName;
  readonly startedAt: number;
  readonly config: Config;
  readonly readiness: Readiness;
  readonly knowledge: Knowledge;
  readonly workers: WorkerSet;
  readonly interception: InterceptionDriver;
  readonly exemptions: ExemptionWatch;
  readonly observer: Observer;
  readonly fallback: Pick<FallbackFiles, 'problem'>;
  readonly guard: GuardStatus;
  readonly outages: Pick<HostOutages, 'down'>;
  readonly certificateExpiresAt: number | undefined;
  readonly leftovers: Iterable<Leftover>;
  reload(): Promise<ReloadAnswer>;
  upgrade(): Promise<UpgradeStep>;
  /** Begins to end; resolves when no new connection is taken. */
  drain(): Promise<void>;
}

/** Answers the admin API from the supervisor's parts; lists are gathered from the workers. */
export class SupervisorAdmin implements AdminBackend {
  readonly #view: AdminView;

  constructor(view: AdminView) {
    this.#view = view;
  }

  ready(): ReadyAnswer {
    const { ready, list } = this.#view.readiness;
    return { ready, blockers: list };
  }

  status(): StatusAnswer {
    const { version, role, node, startedAt, config, knowledge, workers, certificateExpiresAt } = this.#view;
    const { version: snapshotVersion, services, registries } = knowledge.catalogue.status;
    return {
      ...this.ready(),
      version,
      pid: process.pid,
      role,
      node,
      zone: config.node.zone,
      startedAt,
      draining: this.#view.readiness.list.some(({ name }) => name === 'draining'),
      interception: {
        state: this.#view.interception.status.state,
        suspensions: this.#view.interception.suspensions,
      },
      snapshot: {
        version: snapshotVersion,
        services,
        instances: registries.reduce((sum, { instances }) => sum + instances, 0),
      },
      workers: Array.from(workers, ({ index, pid, state, acknowledged }) => ({
        name: `worker-${index}`,
        pid,
        state,
        snapshotVersion: acknowledged,
        restarts: workers.restarts(index),
      })),
      leftovers: Array.from(this.#view.leftovers, ({ name, build, worker }) => ({
        ...{ name, build },
        pid: worker.pid,
        state: worker.state,
      })),
      guard: this.#view.guard,
      outages: this.#view.outages.down,
      ...(certificateExpiresAt === undefined ? {} : { certificateExpiresAt }),
    };
  }

  services(limit: number): ServicesAnswer {
    const { catalogue } = this.#view.knowledge;
    const services: ServicesAnswer['services'][number][] = [];
    for (const { name, protocol, mode, instances, virtual } of catalogue.snapshot.services.values()) {
      if (services.length === limit) break;
      const source = catalogue.provenance(name)?.source;
      services.push({
        name,
        protocol,
        mode,
        instances: instances.length,
        draining: instances.filter(({ draining }) => draining).length,
        ...(virtual === undefined ? {} : { virtual }),
        ...(source === undefined ? {} : { source }),
      });
    }
    return { services, total: catalogue.snapshot.services.size };
  }

  async resolve(question: ResolveQuestion): Promise<ResolveAnswer> {
    return 'name' in question ? this.#resolveName(question.name) : this.#resolveAddress(question.address);
  }

  async #resolveName(text: string): Promise<ResolveAnswer> {
    const { knowledge } = this.#view;
    const name = parseServiceName(text);
    if (name === undefined) throw new MeshError('configuration', 'caller', `${text} is not a service name`);
    const { snapshot } = knowledge.catalogue;
    const service = snapshot.services.get(name);
    if (service !== undefined) {
      const from = knowledge.catalogue.provenance(name);
      const age =
        from === undefined ? '' : `, confirmed ${Math.round((Date.now() - from.confirmedAt) / 1000)} s ago`;
      return {
        verdict: 'service',
        reason: `${from?.source ?? 'catalogue'} says so (${from?.origin ?? 'live'}${age})`,
        services: [service],
      };
    }
    const byHost = Array.from(snapshot.services.values()).filter(({ hosts }) => hosts.includes(text));
    if (byHost.length > 0)
      return { verdict: 'service', reason: `declared as a host of it`, services: byHost };
    const { value, tier, age } = await knowledge.ask({ kind: 'service', name });
    if (value === undefined) return { verdict: 'unknown', reason: 'no registry knows it', services: [] };
    return {
      verdict: 'service',
      reason: `answered by ${tier}, ${Math.round(age / 1000)} s old`,
      services: [value],
    };
  }

  #resolveAddress(text: string): ResolveAnswer {
    const { knowledge, config } = this.#view;
    const endpoint = parseEndpoint(text);
    if (endpoint === undefined) throw new MeshError('configuration', 'caller', `${text} is not ADDRESS:PORT`);
    const own = new OwnListenerSet([config.capture.port, ...ownPorts(config)]);
    const decision = lookup(knowledge.catalogue.snapshot, endpoint as OriginalDestination, own);
    switch (decision.kind) {
      case 'service':
        return { verdict: 'service', reason: 'the address means the service', services: [decision.service] };
      case 'instance': {
        const { service, instance } = decision;
        return {
          verdict: 'instance',
          reason: `the address of instance ${instance.id}`,
          services: [{ ...service, instances: [instance] }],
        };
      }
      case 'passthrough':
        return {
          verdict: 'passthrough',
          reason:
            decision.why === 'unknown' ? 'nobody knows the address' : 'several services share the address',
          services: [],
        };
      case 'refuse':
        return { verdict: 'unknown', reason: `refused: ${decision.reason}`, services: [] };
    }
  }

  async connections(limit: number): Promise<ConnectionsAnswer> {
    const { items, total } = await this.#gather<WorkerConnection>('connections', limit);
    const connections = items.map(
      ({ worker, item }): LiveConnection => ({
        id: item.id,
        worker,
        direction: item.direction,
        startedAt: item.startedAt,
        caller:
          item.callerProgram ??
          (item.caller === undefined
            ? (item.callerService ?? `${item.callerNode ?? '-'} ${item.callerAddress}`)
            : callerText(item.caller)),
        destination: item.destination,
        ...(item.service === undefined ? {} : { service: item.service }),
        ...(item.instance === undefined ? {} : { instance: item.instance }),
        path: item.path,
        bytesSent: item.bytesSent,
        bytesReceived: item.bytesReceived,
      }),
    );
    return { connections: connections.slice(0, limit), total };
  }

  async tunnels(limit: number): Promise<TunnelsAnswer> {
    const { items, total } = await this.#gather<TunnelView>('tunnels', limit);
    const tunnels = items.map(({ worker, item }): TunnelStatus => {
      const { roundTripMs, ...rest } = item;
      return { ...rest, worker, ...(roundTripMs === undefined ? {} : { roundTripMs }) };
    });
    return { tunnels: tunnels.slice(0, limit), total };
  }

  registries(): RegistriesAnswer {
    const { registries } = this.#view.knowledge.catalogue.status;
    return {
      registries: registries.map(({ name, state, confirmedAt, services, instances, lastError }) => ({
        source: name,
        state,
        ...(confirmedAt === undefined ? {} : { ageMs: Date.now() - confirmedAt }),
        services,
        instances,
        ...(lastError === undefined ? {} : { lastError }),
      })),
    };
  }

  rules(): RulesAnswer {
    const { interception, fallback } = this.#view;
    const {
      state,
      mode,
      backend,
      destinations,
      strict,
      allowEntries,
      allowListProblems,
      reasserted,
      refusedAlone,
      lastError,
    } = interception.status;
    const { problems, waiting } = this.#view.exemptions.current;
    const { percent, only } = this.#view.config.capture;
    const restricted = only.services.length + only.users.length + only.units.length > 0;
    return {
      state,
      mode,
      suspensions: interception.suspensions,
      destinations,
      strict,
      allowEntries,
      allowListProblems,
      exemptionProblems: problems,
      waitingUnits: waiting,
      percent,
      ...(restricted ? { only } : {}),
      reasserted,
      refusedAlone,
      ...(backend === undefined ? {} : { backend: backend.version }),
      ...(lastError === undefined ? {} : { lastError }),
      ...(fallback.problem === undefined ? {} : { fallbackProblem: fallback.problem }),
    };
  }

  observe(limit: number): ObserveAnswer {
    return observeAnswer(this.#observeView(), limit);
  }

  observeProposal(): ObserveProposalAnswer {
    return { allowList: observeProposal(this.#observeView()) };
  }

  #observeView() {
    const { observer, knowledge, config, exemptions } = this.#view;
    return { observer, snapshot: knowledge.catalogue.snapshot, config, exempt: exemptions.current.exempt };
  }

  reload(): Promise<ReloadAnswer> {
    return this.#view.reload();
  }

  upgrade(): Promise<UpgradeStep> {
    return this.#view.upgrade();
  }

  async drain(service: string | undefined): Promise<DrainAnswer> {
    if (service !== undefined) {
      throw new MeshError(
        'configuration',
        'caller',
        'only the whole agent can be drained; drain a service in its registry',
      );
    }
    const { total } = await this.connections(1);
    await this.#view.drain();
    return { draining: 'agent', connections: total };
  }

  async #gather<T>(
    list: 'connections' | 'tunnels',
    limit: number,
  ): Promise<{ readonly items: readonly { worker: string; item: T }[]; readonly total: number }> {
    const answers = await Promise.allSettled(
      [
        ...Array.from(this.#view.workers, (worker) => ({ name: `worker-${worker.index}`, worker })),
        ...this.#view.leftovers,
      ].map(async ({ name, worker }) => ({ worker: name, listing: await worker.list(list, limit) })),
    );
    // A worker that does not answer is being replaced; the others' lists are worth showing all the same.
    const answered = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    return {
      items: answered.flatMap(({ worker, listing }) =>
        listing.items.map((item) => ({ worker, item: item as T })),
      ),
      total: answered.reduce((sum, { listing }) => sum + listing.total, 0),
    };
  }
}
