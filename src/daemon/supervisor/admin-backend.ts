import type {
  AdminBackend,
  AuthzAnswer,
  AuthzQuestion,
  ConnectionsAnswer,
  DrainAnswer,
  EventsAnswer,
  ExplainAnswer,
  ExplainQuestion,
  GuardStatus,
  ObserveAnswer,
  ObserveProposalAnswer,
  PoliciesAnswer,
  ReadyAnswer,
  RegistriesAnswer,
  ReloadAnswer,
  ResolveAnswer,
  ResolveQuestion,
  RulesAnswer,
  ServicesAnswer,
  StatusAnswer,
  TunnelsAnswer,
  WhyAnswer,
} from '../../admin/api.ts';
import type { Config } from '../../config/schema.ts';
import { MeshError } from '../../model/errors.ts';
import type { NodeName } from '../../model/service.ts';
import type { EventLog } from '../events.ts';
import type { FallbackFiles } from '../interception/fallback-files.ts';
import type { InterceptionDriver } from '../interception/interception-driver.ts';
import type { Leftover } from '../succession/leftovers.ts';
import type { UpgradeStep } from '../succession/upgrade.ts';
import type { WorkerSet } from '../workers/worker-set.ts';
import { authzAnswer } from './authz-view.ts';
import type { ExemptionWatch } from './exemptions.ts';
import { explain } from './explain/explain.ts';
import type { Knowledge } from './knowledge.ts';
import { observeAnswer, observeProposal } from './observe-view.ts';
import type { Observer } from './observer.ts';
import type { HostOutages } from './outages.ts';
import type { PolicyFeed } from './policy-feed.ts';
import type { Readiness } from './readiness.ts';
import { resolveAnswer } from './resolve-view.ts';
import { endedLast, endedNamed, instancesOf, liveConnections, liveTunnels } from './worker-lists.ts';

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
  readonly policies: Pick<PolicyFeed, 'current' | 'origins' | 'status'>;
  readonly events: Pick<EventLog, 'since'>;
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

  explain(question: ExplainQuestion): Promise<ExplainAnswer> {
    const { node, config, knowledge, policies, interception, exemptions, outages } = this.#view;
    return explain(question, {
      ...{ node, config, snapshot: knowledge.catalogue.snapshot },
      policies: policies.current,
      origins: policies.origins,
      exempt: exemptions.current.exempt,
      callers: exemptions.callers,
      interception: { state: interception.status.state, suspensions: interception.suspensions },
      outages: outages.down,
      instancesOf: (service) => instancesOf(this.#view, service),
    });
  }

  async why(id: string): Promise<WhyAnswer> {
    return { ended: await endedNamed(this.#view, id) };
  }

  async ended(badly: boolean, limit: number): Promise<WhyAnswer> {
    return { ended: await endedLast(this.#view, badly, limit) };
  }

  events(after: number, limit: number): EventsAnswer {
    return { events: this.#view.events.since(after, limit) };
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
      workers: workers.places.map(({ index, pid, state, acknowledged, policyVersion }) => ({
        name: `worker-${index}`,
        pid,
        state,
        snapshotVersion: acknowledged,
        policyVersion,
        restarts: workers.restarts(index),
      })),
      leftovers: Array.from(this.#view.leftovers, ({ name, build, worker }) => ({
        ...{ name, build },
        pid: worker.pid,
        state: worker.state,
      })),
      guard: this.#view.guard,
      policies: this.#view.policies.status,
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

  resolve(question: ResolveQuestion): Promise<ResolveAnswer> {
    return resolveAnswer(question, this.#view.knowledge, this.#view.config);
  }

  authz(question: AuthzQuestion): AuthzAnswer {
    const { node, knowledge, policies } = this.#view;
    return authzAnswer(question, { node, snapshot: knowledge.catalogue.snapshot, policies });
  }

  connections(limit: number): Promise<ConnectionsAnswer> {
    return liveConnections(this.#view, limit);
  }

  tunnels(limit: number): Promise<TunnelsAnswer> {
    return liveTunnels(this.#view, limit);
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

  policies(): PoliciesAnswer {
    const { current, origins, status } = this.#view.policies;
    return { ...status, policies: current, origins };
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
}
