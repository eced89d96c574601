import { join } from 'node:path';
import type { ConnectionDirection, ConnectionPath } from '../model/connection.ts';
import type { PolicySet } from '../model/policy.ts';
import type { Service } from '../model/service.ts';

/*
 * The answers of the admin API, shared by the daemon that gives them and the command line that shows them.
 * Times are milliseconds since the epoch, durations milliseconds.
 */

/** Name of the socket in `daemon.runtimeDirectory`. */
export function adminSocket(runtimeDirectory: string): string {
  return join(runtimeDirectory, 'admin.sock');
}

/** One thing that stands between the agent and being ready. */
export interface Blocker {
  readonly name: string;
  readonly reason: string;
}

/** GET /v1/ready: 200 when there is no blocker, else 503. */
export interface ReadyAnswer {
  readonly ready: boolean;
  readonly blockers: readonly Blocker[];
}

/** One data-plane process. */
export interface WorkerStatus {
  readonly name: string;
  readonly pid: number;
  readonly state: string;
  readonly snapshotVersion: number;
  /** Of the policies that it goes by; -1 before it said so. */
  readonly policyVersion: number;
  readonly restarts: number;
}

/** A worker of an earlier start or version, which finishes its connections. */
export interface LeftoverStatus {
  readonly name: string;
  readonly pid: number;
  readonly state: string;
  /** Version, and when its files were written. */
  readonly build: string;
}

/** What the agent found of itself: `out` while new connections go direct because of it. */
export interface GuardStatus {
  readonly state: 'in' | 'out';
  /** The measure and a sentence about it, while out. */
  readonly measure?: string;
  readonly reason?: string;
  readonly since?: number;
}

/** What is said of policies: what is in force, and why something else is not. */
export interface PolicyStatus {
  readonly directory: string;
  /** 0: there are none. */
  readonly version: number;
  /** Services with sections of their own. */
  readonly services: number;
  /** When they came into force. */
  readonly since: number;
  /** `kept`: the documents of an earlier run, because those of the directory cannot be used. */
  readonly source: 'directory' | 'kept' | 'none';
  /** Why what the directory says now is not in force; empty when it is. */
  readonly refused: readonly string[];
  /** What is no reason to refuse it, and yet not as it should be. */
  readonly warnings: readonly string[];
}

/** GET /v1/policies. */
export interface PoliciesAnswer extends PolicyStatus {
  readonly policies: PolicySet;
  /** FILE:LINE of each section, by service; `*` for those of all others. */
  readonly origins: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

/** GET /v1/status. */
export interface StatusAnswer extends ReadyAnswer {
  readonly version: string;
  readonly pid: number;
  readonly role: 'node' | 'zone-agent';
  readonly node: string;
  readonly zone: string;
  readonly startedAt: number;
  readonly draining: boolean;
  /** State of interception, and why new connections go direct although the agent runs. */
  readonly interception: { readonly state: string; readonly suspensions: readonly string[] };
  readonly snapshot: { readonly version: number; readonly services: number; readonly instances: number };
  /** All of them, also one that is `gone` and being replaced. */
  readonly workers: readonly WorkerStatus[];
  readonly leftovers: readonly LeftoverStatus[];
  readonly guard: GuardStatus;
  readonly policies: PolicyStatus;
  /** Services, and instances called by their own address, that nobody could reach: connect() is refused there. */
  readonly outages: readonly { readonly service: string; readonly instance?: string }[];
  /** End of the node certificate's life; absent while there is none. */
  readonly certificateExpiresAt?: number;
}

/** One service, without its instances. */
export interface ServiceSummary {
  readonly name: string;
  readonly protocol: string;
  readonly mode: string;
  readonly instances: number;
  readonly draining: number;
  /** Its virtual addresses at this host, IPv4 first. */
  readonly virtual?: readonly string[];
  readonly source?: string;
}

/** GET /v1/services. */
export interface ServicesAnswer {
  readonly services: readonly ServiceSummary[];
  /** How many there are; more than listed when the answer was cut. */
  readonly total: number;
}

/** What GET /v1/resolve is asked: exactly one of the two. */
export type ResolveQuestion = { readonly name: string } | { readonly address: string };

/** GET /v1/resolve?name=… or ?address=…. */
export interface ResolveAnswer {
  /** What would become of a connection there. */
  readonly verdict: 'service' | 'instance' | 'passthrough' | 'unknown';
  /** One sentence for people. */
  readonly reason: string;
  readonly services: readonly Service[];
}

/** What GET /v1/authz is asked. */
export interface AuthzQuestion {
  /** `unit:NAME`, `user:NAME`, `container:ID`, `service:NAME`, `node:NAME` or `unknown`. */
  readonly caller: string;
  readonly service: string;
  readonly method?: string;
  /** As it is sent, with or without a query. */
  readonly path?: string;
  /** Of the instance; needed where it has several. */
  readonly port?: number;
  /** Host of the caller; absent: this one. */
  readonly node?: string;
  /** Service that the caller speaks for. */
  readonly as?: string;
}

/** GET /v1/authz?caller=&service=&…. */
export interface AuthzAnswer {
  readonly service: string;
  readonly program?: string;
  readonly callerService?: string;
  readonly node?: string;
  /** `requests`: it depends on method and path, which were not said. */
  readonly decision: 'allow' | 'deny' | 'shadow-deny' | 'requests';
  /** Name of the rule; absent: what holds otherwise. */
  readonly rule?: string;
  /** `FILE:LINE` of the rules. */
  readonly origin?: string;
  /** One sentence for people. */
  readonly reason: string;
  /** What should be known beside it. */
  readonly notes: readonly string[];
}

/** One live connection. */
export interface LiveConnection {
  readonly id: string;
  readonly worker: string;
  readonly direction: ConnectionDirection;
  readonly startedAt: number;
  readonly caller: string;
  readonly destination: string;
  readonly service?: string;
  readonly instance?: string;
  readonly path: ConnectionPath;
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

/** GET /v1/connections?limit=. */
export interface ConnectionsAnswer {
  readonly connections: readonly LiveConnection[];
  readonly total: number;
}

/** One tunnel of one worker. */
export interface TunnelStatus {
  readonly peer: string;
  readonly worker: string;
  readonly direction: 'dialled' | 'accepted';
  readonly state: string;
  readonly address: string;
  readonly streams: number;
  readonly roundTripMs?: number;
  readonly since: number;
}

/** GET /v1/tunnels?limit=. */
export interface TunnelsAnswer {
  readonly tunnels: readonly TunnelStatus[];
  readonly total: number;
}

/** One registry. */
export interface RegistryStatus {
  readonly source: string;
  readonly state: string;
  /** Since it last confirmed what it told; absent when it never did. */
  readonly ageMs?: number;
  readonly services: number;
  readonly instances: number;
  readonly lastError?: string;
}

/** GET /v1/registries. */
export interface RegistriesAnswer {
  readonly registries: readonly RegistryStatus[];
}

/** GET /v1/rules. */
export interface RulesAnswer {
  readonly state: string;
  readonly mode: string;
  readonly backend?: string;
  /** Why new connections go direct although the agent runs; empty when nothing speaks against interception. */
  readonly suspensions: readonly string[];
  readonly destinations: { readonly ipv4: number; readonly ipv6: number };
  /** Addresses of strict services: whoever is not the agent is refused there. */
  readonly strict: { readonly ipv4: number; readonly ipv6: number };
  readonly allowEntries: number;
  /** Lines of the allow-list that cannot be used, with their numbers. */
  readonly allowListProblems: readonly string[];
  /** Users and host names (of the allow-list and of `capture.only`) that are not found: left out for now. */
  readonly exemptionProblems: readonly string[];
  /** Units that do not run now: matched once they do. */
  readonly waitingUnits: readonly string[];
  /** `capture.percent`, and whose connections are taken: absent, everybody's. */
  readonly percent: number;
  readonly only?: {
    readonly services: readonly string[];
    readonly users: readonly string[];
    readonly units: readonly string[];
  };
  readonly reasserted: number;
  readonly lastError?: string;
  /** Services whose virtual addresses are refused without the agent, for there are too many. */
  readonly refusedAlone: number;
  /** What holds without the agent is not on disk as it should be. */
  readonly fallbackProblem?: string;
}

/** How often one caller opened connections to one service, or to one address that belongs to none. */
export interface ObservedCalls {
  readonly caller: string;
  /** Exactly one of the two. */
  readonly service?: string;
  readonly destination?: string;
  /** The allow-list in force covers the destination. */
  readonly allowed: boolean;
  readonly count: number;
  readonly firstSeen: number;
  readonly lastSeen: number;
}

/** GET /v1/observe?limit=. */
export interface ObserveAnswer {
  readonly mode: string;
  readonly recording: boolean;
  /** Why nothing can be seen although the mode is `observe`. */
  readonly problem?: string;
  /** Connections since the daemon started: seen, and not seen because there were too many at once. */
  readonly seen: number;
  readonly lost: number;
  /** Pairs of caller and destination address: remembered, and forgotten because there are too many. */
  readonly pairs: number;
  readonly forgotten: number;
  readonly calls: readonly ObservedCalls[];
  readonly total: number;
}

/** Something that somebody may want to be told about. */
export interface EventAnswer {
  /** Grows by one with each event since the agent started. */
  readonly sequence: number;
  readonly at: number;
  /** `supervisor` or a worker. */
  readonly process: string;
  readonly kind: string;
  readonly service?: string;
  readonly instance?: string;
  readonly text: string;
}

/** What GET /v1/explain is asked. */
export interface ExplainQuestion {
  /** A URL, ADDRESS:PORT, or the name of a service. */
  readonly to: string;
  /** The program that calls: a unit, or `user:NAME`, `container:ID`. */
  readonly from?: string;
  /** The service that it calls as; by default that of this node. */
  readonly service?: string;
  /** The host that it calls from; by default this one. */
  readonly node?: string;
  readonly method?: string;
  /** `NAME: VALUE`, one in a line. */
  readonly headers?: string;
}

/** One decision. */
export interface ExplainStep {
  readonly title: string;
  /** One sentence for people. */
  readonly text: string;
  readonly details: readonly string[];
}

/** An instance, and whether it might be picked. */
export interface ExplainedInstance {
  readonly id: string;
  readonly zone: string;
  readonly weight: number;
  readonly path: ConnectionPath;
  /** The agent of its host. */
  readonly agent?: string;
  readonly candidate: boolean;
  readonly reason: string;
  /** Connections, or requests, that it has now. */
  readonly active: number;
  readonly latencyMs?: number;
}

/** GET /v1/explain. */
export interface ExplainAnswer {
  /** `answered`: by the agent itself. */
  readonly outcome: 'service' | 'passthrough' | 'refused' | 'answered';
  readonly steps: readonly ExplainStep[];
  readonly instances: readonly ExplainedInstance[];
}

/** A connection, or a request, that is over. */
export interface EndedStatus {
  readonly kind: 'connection' | 'request';
  readonly id: string;
  readonly worker: string;
  readonly startedAt: number;
  readonly durationMs: number;
  readonly caller: string;
  readonly callerNode?: string | undefined;
  readonly callerService?: string | undefined;
  readonly callerAddress: string;
  readonly service?: string | undefined;
  readonly instance?: string | undefined;
  readonly zone?: string | undefined;
  readonly path: ConnectionPath;
  readonly attempts: number;
  /** Attempts that came to nothing. */
  readonly failures?:
    | readonly {
        readonly instance: string;
        readonly path: ConnectionPath;
        readonly reason: string;
        readonly detail?: string | undefined;
      }[]
    | undefined;
  readonly reason: string;
  readonly detail?: string | undefined;
  /** Of a connection. */
  readonly direction?: ConnectionDirection;
  readonly destination?: string;
  readonly bytesSent?: number;
  readonly bytesReceived?: number;
  readonly access?: string | undefined;
  /** Of a request. */
  readonly method?: string | undefined;
  readonly authority?: string | undefined;
  readonly target?: string | undefined;
  readonly status?: number;
  readonly requestBytes?: number;
  readonly responseBytes?: number;
  readonly reused?: boolean;
  readonly traceId?: string | undefined;
  readonly route?: string | undefined;
}

/** GET /v1/why?id=: a connection and its requests, in order. GET /v1/why?badly=&limit=: those that ended last. */
export interface WhyAnswer {
  readonly ended: readonly EndedStatus[];
}

/** GET /v1/events?after=&limit=: the newest ones behind a sequence number, in order. */
export interface EventsAnswer {
  readonly events: readonly EventAnswer[];
}

/** GET /v1/observe/proposal. */
export interface ObserveProposalAnswer {
  /** Lines for the allow-list, with comments. */
  readonly allowList: string;
}

/** POST /v1/reload. A configuration that cannot be used is an error 422, and the old one stays. */
export interface ReloadAnswer {
  /** Sections that changed. */
  readonly changed: readonly string[];
  /** Changed sections that act only after a restart. */
  readonly needRestart: readonly string[];
}

/** POST /v1/drain, POST /v1/drain?service=…. */
export interface DrainAnswer {
  readonly draining: string;
  /** Connections that go on for now. */
  readonly connections: number;
}

/** Every failure: the HTTP status, and this as its body. */
export interface ErrorAnswer {
  readonly error: { readonly code: string; readonly message: string };
}

type Maybe<T> = T | Promise<T>;

/** POST /v1/upgrade: what is about to happen. It has happened when the status tells another `startedAt`. */
export interface UpgradeAnswer {
  readonly from: string;
  readonly to: string;
  readonly pid: number;
  /** Of the image that is replaced. */
  readonly startedAt: number;
}

/** What the API shows and does; the daemon implements it. May throw MeshErrors: their code chooses the status. */
export interface AdminBackend {
  status(): Maybe<StatusAnswer>;
  ready(): Maybe<ReadyAnswer>;
  services(limit: number): Maybe<ServicesAnswer>;
  resolve(question: ResolveQuestion): Maybe<ResolveAnswer>;
  authz(question: AuthzQuestion): Maybe<AuthzAnswer>;
  connections(limit: number): Maybe<ConnectionsAnswer>;
  tunnels(limit: number): Maybe<TunnelsAnswer>;
  registries(): Maybe<RegistriesAnswer>;
  rules(): Maybe<RulesAnswer>;
  policies(): Maybe<PoliciesAnswer>;
  observe(limit: number): Maybe<ObserveAnswer>;
  observeProposal(): Maybe<ObserveProposalAnswer>;
  explain(question: ExplainQuestion): Maybe<ExplainAnswer>;
  /** A connection or request that is over, by its name; an empty answer when nobody remembers it. */
  why(id: string): Maybe<WhyAnswer>;
  /** Those that ended last; `badly`: only those. */
  ended(badly: boolean, limit: number): Maybe<WhyAnswer>;
  /** Those behind the sequence number `after`. */
  events(after: number, limit: number): Maybe<EventsAnswer>;
  reload(): Maybe<ReloadAnswer>;
  drain(service: string | undefined): Maybe<DrainAnswer>;
  /** `proceed` is called once the answer has been given: nobody answers for a moment then. */
  upgrade(): Promise<{ readonly answer: UpgradeAnswer; proceed(): void }>;
}
