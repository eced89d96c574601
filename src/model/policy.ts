import type { ServiceName } from './service.ts';

/*
 * What operators say about services at run time: the documents of /etc/mesh-node/policies.d as plain values, checked and
 * complete. Times are in milliseconds, sizes in bytes, shares in percent. Every section stands alone: one that is absent
 * means that the agent does what it does without policies.
 */

/** How a text is compared. Regular expressions are RE2 (linear time) and match anywhere unless anchored. */
export type TextMatch =
  | { readonly kind: 'exact'; readonly value: string }
  | { readonly kind: 'prefix'; readonly value: string }
  | { readonly kind: 'regex'; readonly value: string }
  | { readonly kind: 'present' }
  | { readonly kind: 'absent' };

/** A text that a request carries under a name: header (lower case), cookie or query parameter. */
export interface NamedMatch {
  readonly name: string;
  readonly match: TextMatch;
}

/**
 * Who calls, in one pattern: `service:NAME`, `unit:NAME`, `user:NAME`, `container:ID`, `node:NAME`, or `*` for everybody;
 * the part behind the colon may end in `*`.
 */
export type CallerPattern = string;

/** All that is named has to hold. */
export interface RequestMatch {
  readonly methods?: readonly string[];
  /** Without the query. A prefix ends at a segment: `/api` is met by `/api` and `/api/x`, not by `/apis`. */
  readonly path?: TextMatch;
  readonly headers?: readonly NamedMatch[];
  readonly cookies?: readonly NamedMatch[];
  readonly query?: readonly NamedMatch[];
  /** One of them. */
  readonly callers?: readonly CallerPattern[];
}

/** Which text of a request decides where it goes again and again: same text, same choice. */
export type StickyKey =
  | { readonly kind: 'header'; readonly name: string }
  | { readonly kind: 'cookie'; readonly name: string }
  /** The program that calls, else its address. */
  | { readonly kind: 'caller' };

/** A part of a service: instances that carry all of these labels. Empty: all of them. */
export type Subset = Readonly<Record<string, string>>;

export interface WeightedSubset {
  readonly subset: Subset;
  /** Share among its neighbours; 0: none. */
  readonly weight: number;
}

export interface Rewrite {
  /** Replaces the part of the path that a `prefix` matched, or the whole path. */
  readonly path?: string;
  /** Sent on as Host. */
  readonly host?: string;
}

export interface Redirect {
  readonly status: 301 | 302 | 303 | 307 | 308;
  readonly scheme?: 'http' | 'https';
  readonly host?: string;
  /** As in {@link Rewrite}; the query stays. */
  readonly path?: string;
}

/** Faults for tests. */
export interface Fault {
  readonly delay?: { readonly duration: number; readonly percent: number };
  readonly abort?: { readonly status: number; readonly percent: number };
}

export interface Route {
  readonly name: string;
  /** One of them has to hold; none are named: every request. */
  readonly matches: readonly RequestMatch[];
  /** Of the requests that match, this share; the others go on to the next route. */
  readonly percent: number;
  /** Decides `percent` and the split; absent: every request anew. */
  readonly sticky?: StickyKey;
  /** Absent: all instances of the service. */
  readonly to?: readonly WeightedSubset[];
  readonly rewrite?: Rewrite;
  readonly redirect?: Redirect;
  readonly fault?: Fault;
  /** In the place of the service's own section. */
  readonly timeouts?: Timeouts;
  readonly retries?: Retries;
}

/** What makes another attempt worth it. `connect-failure`: nothing was delivered. `reset`: lost before an answer began. */
export const retryConditions = ['connect-failure', 'reset', 'timeout', 'status', 'header'] as const;
export type RetryCondition = (typeof retryConditions)[number];

export interface Retries {
  readonly on: readonly RetryCondition[];
  /** Statuses of answers, for `status`. */
  readonly statuses: readonly number[];
  /** Of the answer's head, for `header`: one of them. */
  readonly headers: readonly NamedMatch[];
  /** Further attempts after the first. */
  readonly attempts: number;
  /** Methods that may be asked again after they may have been heard. */
  readonly methods: readonly string[];
  readonly perTryTimeout?: number;
  readonly backoff: { readonly base: number; readonly max: number };
  /** Retries that may run: this share of requests of the last ten seconds, and so many a second besides. */
  readonly budget: { readonly percent: number; readonly perSecond: number };
  /** Content of a request that is kept for another attempt; a longer one is asked once. */
  readonly replayBuffer: number;
}

/** 0: no bound. */
export interface Timeouts {
  /** On reaching one instance. */
  readonly connect?: number;
  /** From the head of a request to the end of its answer, all attempts together. */
  readonly request?: number;
  /** A connection of the caller without a request, or an opaque one without a byte. */
  readonly idle?: number;
  /** Within a request or an upgraded connection: no byte either way. */
  readonly stream?: number;
}

/** Bounds of this host's calls to a service, each held by every worker for its share. */
export interface CircuitBreaker {
  readonly connections?: number;
  /** Waiting for an instance to be reached. */
  readonly pending?: number;
  readonly requests?: number;
  /** Retries at once. */
  readonly retries?: number;
}

export interface Outlier {
  /** Failures in a row: not reached, reset, 5xx, or out of time. */
  readonly consecutiveErrors: number;
  /** How often rates and delays are compared. */
  readonly interval: number;
  /** Sets those aside whose share of success is below the mean minus `factor` standard deviations. */
  readonly successRate?: {
    readonly minimumInstances: number;
    readonly minimumRequests: number;
    readonly factor: number;
  };
  /** Sets those aside whose mean delay is over `factor` times the median of the service's instances. */
  readonly latency?: {
    readonly minimumInstances: number;
    readonly minimumRequests: number;
    readonly factor: number;
    readonly atLeast: number;
  };
  readonly baseEjection: number;
  readonly maxEjection: number;
  readonly maxEjectedPercent: number;
  /** When fewer than this share of instances is usable, all are used. */
  readonly panicThreshold: number;
}

/** Asks instances by itself. */
export interface ActiveProbe {
  /** Absent: a connection is enough. */
  readonly http?: {
    readonly path: string;
    readonly host?: string;
    readonly statuses: readonly { readonly from: number; readonly to: number }[];
  };
  readonly interval: number;
  readonly timeout: number;
  /** Successes in a row that bring an instance back, failures in a row that set it aside. */
  readonly rise: number;
  readonly fall: number;
}

export const balanceAlgorithms = [
  'round-robin',
  'least-connections',
  'least-requests',
  'peak-ewma',
  'ring-hash',
] as const;
export type BalanceAlgorithm = (typeof balanceAlgorithms)[number];

export interface Balance {
  readonly algorithm?: BalanceAlgorithm;
  /** For `ring-hash`. */
  readonly hash?: StickyKey;
  /** Most load of one instance under `ring-hash`, in percent of the mean. */
  readonly boundedLoad: number;
  /** Time in which the share of an instance that is new, or back, grows to its weight; 0: none. */
  readonly slowStart: number;
  /** Local node → zone → others: the next ring is used as well when less than this share of the nearer one is usable. */
  readonly overflowBelow: number;
  /** And when the nearer ones have fewer usable instances than this. */
  readonly minimumNear: number;
}

export interface RateLimit {
  readonly name: string;
  /** Whose requests (or, for opaque services, connections) are counted together. */
  readonly per:
    | { readonly kind: 'service' }
    | { readonly kind: 'caller' }
    | { readonly kind: 'header'; readonly name: string };
  /** So many in `interval`, evenly. */
  readonly count: number;
  readonly interval: number;
  /** So many at once. */
  readonly burst: number;
  /** Only requests that match one of them. Empty: all. */
  readonly matches: readonly RequestMatch[];
}

export interface AccessRule {
  readonly name: string;
  readonly action: 'allow' | 'deny';
  /** One of them. */
  readonly callers: readonly CallerPattern[];
  /** Of HTTP services only: one of each that is named. */
  readonly methods?: readonly string[];
  readonly paths?: readonly TextMatch[];
  /** Ports of the instance. */
  readonly ports?: readonly number[];
}

/** Decided at the agent of the called instance. The first rule that matches counts. */
export interface Access {
  readonly rules: readonly AccessRule[];
  readonly otherwise: 'allow' | 'deny';
  /** What would be denied is written down and let through. */
  readonly shadow: boolean;
}

/** Everything said of one service. */
export interface ServicePolicy {
  readonly routes?: readonly Route[];
  readonly retries?: Retries;
  readonly timeouts?: Timeouts;
  readonly circuitBreaker?: CircuitBreaker;
  readonly outlier?: Outlier;
  readonly probe?: ActiveProbe;
  readonly balance?: Balance;
  readonly rateLimits?: readonly RateLimit[];
  readonly access?: Access;
  /** `two`: callers connect to permissive instances directly, past the agents. Absent: `three`. */
  readonly hops?: 'two' | 'three';
}

/** All documents together. */
export interface PolicySet {
  /** Grows with each change; 0: none were read. */
  readonly version: number;
  /** For services that do not have the section themselves. */
  readonly common: ServicePolicy;
  readonly services: Readonly<Record<string, ServicePolicy>>;
}

export const noPolicy: ServicePolicy = Object.freeze({});

export const emptyPolicySet: PolicySet = Object.freeze({ version: 0, common: noPolicy, services: {} });

/** Policies by service: one immutable value, swapped whole. Answers are the same object for as long as it is in use. */
export class Policies {
  readonly version: number;
  /** Access to some service is restricted. */
  readonly decideAccess: boolean;
  /** Something depends on which program calls. */
  readonly needNames: boolean;
  readonly #common: ServicePolicy;
  readonly #services = new Map<string, ServicePolicy>();

  constructor(set: PolicySet) {
    this.version = set.version;
    this.#common = set.common;
    const all = [set.common, ...Object.values(set.services)];
    this.decideAccess = all.some(({ access }) => access !== undefined);
    this.needNames = this.decideAccess || all.some(dependsOnCaller);
    for (const [name, own] of Object.entries(set.services)) {
      this.#services.set(name, Object.freeze({ ...set.common, ...own }));
    }
  }

  /** The sections of a service: its own, and the common ones where it has none. */
  for(service: ServiceName): ServicePolicy {
    return this.#services.get(service) ?? this.#common;
  }
}

function dependsOnCaller({ routes = [], rateLimits = [], balance }: ServicePolicy): boolean {
  const names = ({ callers }: RequestMatch) => callers !== undefined;
  return (
    balance?.hash?.kind === 'caller' ||
    rateLimits.some(({ per, matches }) => per.kind === 'caller' || matches.some(names)) ||
    routes.some(({ matches, sticky }) => sticky?.kind === 'caller' || matches.some(names))
  );
}
