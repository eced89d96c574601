import type {
  AdminBackend,
  AuthzAnswer,
  AuthzQuestion,
  ConnectionsAnswer,
  DrainAnswer,
  EndedStatus,
  EventsAnswer,
  ExplainAnswer,
  ExplainQuestion,
  ObserveAnswer,
  ObserveProposalAnswer,
  PoliciesAnswer,
  PolicyStatus,
  ReadyAnswer,
  RegistriesAnswer,
  ReloadAnswer,
  ResolveAnswer,
  ResolveQuestion,
  RulesAnswer,
  ServicesAnswer,
  StatusAnswer,
  TunnelsAnswer,
  UpgradeAnswer,
  WhyAnswer,
} from '../../../src/admin/api.ts';
import { parseIp } from '../../../src/model/address.ts';
import type { InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';

const orders: Service = {
  name: 'orders' as ServiceName,
  protocol: 'tcp',
  mode: 'permissive',
  interchangeable: false,
  balance: 'round-robin',
  hosts: [],
  addresses: [],
  instances: [
    {
      id: '10.0.0.1:80' as InstanceId,
      address: { ip: parseIp('10.0.0.1')!, port: 80 },
      node: 'web1' as NodeName,
      zone: 'dc1',
      labels: {},
      weight: 100,
      draining: false,
    },
  ],
};

const policyStatus: PolicyStatus = {
  directory: '/etc/mesh-node/policies.d',
  version: 3,
  services: 1,
  since: Date.now() - 65_000,
  source: 'directory',
  refused: [
    '/etc/mesh-node/policies.d/b.yaml:1:1: x: found a key that is not known, expected one of service',
  ],
  warnings: ['/etc/mesh-node/policies.d: everybody may write it'],
};

const endedRequest: EndedStatus = {
  ...{ kind: 'request', id: '7-1.2', worker: 'worker-0', startedAt: 1_700_000_000_000, durationMs: 1500 },
  ...{ caller: 'unit:shop.service', callerNode: 'a', callerAddress: '10.0.0.1:50000' },
  ...{ service: 'orders', instance: 'two', zone: 'dc1', path: 'tunnel', attempts: 2, reused: false },
  failures: [{ instance: 'one', path: 'tunnel', reason: 'refused', detail: 'connect: ECONNREFUSED' }],
  ...{ reason: 'timeout', detail: 'no answer within 1 s', route: 'canary', traceId: '4bf92f35' },
  ...{ method: 'GET', authority: 'orders', target: '/x', status: 504, requestBytes: 0, responseBytes: 12 },
};

const endedConnection: EndedStatus = {
  ...{ kind: 'connection', id: '7-1', worker: 'worker-0', startedAt: 1_700_000_000_000, durationMs: 99 },
  ...{ caller: 'user:www-data', callerAddress: '10.0.0.1:50000', path: 'passthrough', attempts: 1 },
  ...{ reason: 'done', direction: 'outbound', destination: '192.0.2.1:443', bytesSent: 5, bytesReceived: 9 },
};

/** An agent that is not ready, with one of each thing; it notes what it is asked. */
export class FakeBackend implements AdminBackend {
  readonly asked: unknown[] = [];
  failure: Error | undefined;
  isReady = false;

  ready(): ReadyAnswer {
    if (this.isReady) return { ready: true, blockers: [] };
    return { ready: false, blockers: [{ name: 'catalogue', reason: 'no registry has answered' }] };
  }

  status(): StatusAnswer {
    return {
      ...this.ready(),
      version: '1.2.3',
      pid: 42,
      role: 'node',
      node: 'web1',
      zone: 'dc1',
      startedAt: Date.now() - 65_000,
      draining: false,
      interception: { state: 'applied', suspensions: [] },
      snapshot: { version: 7, services: 1, instances: 1 },
      workers: [
        { name: 'worker-0', pid: 43, state: 'serving', snapshotVersion: 7, policyVersion: 3, restarts: 0 },
      ],
      leftovers: [],
      guard: { state: 'in' },
      policies: policyStatus,
      outages: [],
      certificateExpiresAt: Date.now() + 86_400_000,
    };
  }

  services(): ServicesAnswer {
    const virtual = ['240.1.2.3', 'fd00::1'];
    const service = {
      name: 'orders',
      protocol: 'tcp',
      mode: 'permissive',
      instances: 1,
      draining: 0,
      virtual,
    };
    return { services: [service], total: 5 };
  }

  resolve(question: ResolveQuestion): ResolveAnswer {
    this.asked.push(question);
    const known = 'address' in question || question.name === 'orders';
    return known
      ? { verdict: 'service', reason: 'any instance of orders', services: [orders] }
      : { verdict: 'unknown', reason: 'no registry knows it', services: [] };
  }

  authz(question: AuthzQuestion): AuthzAnswer {
    this.asked.push(question);
    const { caller, service, method } = question;
    if (caller !== 'unit:front') return { service, decision: 'allow', reason: 'no access rules', notes: [] };
    if (method === undefined) return { service, decision: 'requests', reason: 'that depends', notes: [] };
    const decision = method === 'GET' ? 'shadow-deny' : 'deny';
    const origin = '/etc/mesh-node/policies.d/orders.yaml:3';
    return { service, decision, rule: 'no-front', origin, reason: 'no-front says so', notes: ['permissive'] };
  }

  connections(limit: number): ConnectionsAnswer {
    this.asked.push(limit);
    const connection = {
      id: 'worker-0-1',
      worker: 'worker-0',
      direction: 'outbound',
      startedAt: Date.now() - 5_000,
      caller: '10.0.0.9:40000',
      destination: '10.0.0.1:80',
      service: 'orders',
      path: 'tunnel',
      bytesSent: 1536,
      bytesReceived: 0,
    } as const;
    return { connections: [connection], total: 1 };
  }

  tunnels(): TunnelsAnswer {
    const tunnel = {
      peer: 'web2',
      worker: 'worker-0',
      direction: 'dialled',
      state: 'open',
      address: '10.0.0.2:15008',
      streams: 3,
      roundTripMs: 0.25,
      since: Date.now() - 7_000,
    } as const;
    return { tunnels: [tunnel], total: 1 };
  }

  registries(): RegistriesAnswer {
    return {
      registries: [{ source: 'file:/x', state: 'synced', ageMs: 1500, services: 1, instances: 1 }],
    };
  }

  suspensions: readonly string[] = [];

  rules(): RulesAnswer {
    this.asked.push('rules');
    return {
      state: this.suspensions.length === 0 ? 'applied' : 'withdrawn',
      mode: 'services',
      backend: 'nft',
      suspensions: this.suspensions,
      destinations: { ipv4: 1, ipv6: 0 },
      strict: { ipv4: 2, ipv6: 1 },
      refusedAlone: 0,
      allowEntries: 2,
      allowListProblems: ['/etc/mesh-node/allow-list:3:1: found "x", expected an address'],
      exemptionProblems: ['user:ghost: no such user'],
      waitingUnits: ['backup.service'],
      percent: 10,
      only: { services: [], users: ['shop'], units: [] },
      reasserted: 0,
    };
  }

  policies(): PoliciesAnswer {
    const origins = {
      '*': { hops: '/etc/mesh-node/policies.d/a.yaml:2' },
      orders: { timeouts: '/etc/mesh-node/policies.d/a.yaml:5' },
    };
    return {
      ...policyStatus,
      policies: {
        version: 3,
        common: { hops: 'two' },
        services: { orders: { timeouts: { request: 5000 } } },
      },
      origins,
    };
  }

  observe(limit: number): ObserveAnswer {
    this.asked.push('observe', limit);
    const times = { firstSeen: Date.now() - 60_000, lastSeen: Date.now() - 1_000 };
    return {
      mode: 'observe',
      recording: true,
      seen: 12,
      lost: 3,
      pairs: 2,
      forgotten: 0,
      calls: [
        { caller: 'unit:shop.service', service: 'orders', allowed: false, count: 9, ...times },
        { caller: 'user:root', destination: '10.0.0.5:5432', allowed: false, count: 3, ...times },
      ].slice(0, limit),
      total: 2,
    };
  }

  explain(question: ExplainQuestion): ExplainAnswer {
    this.asked.push(question);
    const outcome = question.to === 'nowhere' ? 'refused' : 'service';
    const instance = { id: 'one', zone: 'dc1', weight: 100, path: 'tunnel', agent: 'b', active: 3 } as const;
    return {
      outcome,
      steps: [{ title: 'route', text: 'by route canary', details: ['canary: matches'] }],
      instances: [{ ...instance, candidate: true, reason: 'in this zone', latencyMs: 1.25 }],
    };
  }

  why(id: string): WhyAnswer {
    return { ended: [endedRequest, endedConnection].filter((one) => one.id === id) };
  }

  ended(badly: boolean): WhyAnswer {
    return { ended: badly ? [endedRequest] : [endedRequest, endedConnection] };
  }

  events(after: number): EventsAnswer {
    const event = {
      at: 0,
      process: 'worker-0',
      kind: 'circuit-breaker',
      service: 'orders',
      text: 'requests: closed → open',
    };
    return {
      events: [1, 2].filter((sequence) => sequence > after).map((sequence) => ({ ...event, sequence })),
    };
  }

  observeProposal(): ObserveProposalAnswer {
    this.asked.push('proposal');
    return { allowList: '# 3 connections: user:root (3)\n10.0.0.5:5432\n' };
  }

  reload(): ReloadAnswer {
    if (this.failure !== undefined) throw this.failure;
    return { changed: ['telemetry'], needRestart: ['daemon'] };
  }

  async upgrade(): Promise<{ readonly answer: UpgradeAnswer; proceed(): void }> {
    if (this.failure !== undefined) throw this.failure;
    const answer = { from: '1.0.0', to: '1.1.0', pid: 7, startedAt: 1 };
    return { answer, proceed: () => this.asked.push('proceed') };
  }

  drain(service: string | undefined): DrainAnswer {
    this.asked.push(service);
    return { draining: service ?? 'web1', connections: 3 };
  }
}
