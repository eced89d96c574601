import type { Channel } from '../io/channel.ts';
import type { ConnectionPath, EndReason } from '../model/connection.ts';
import type { ServicePolicy, Subset } from '../model/policy.ts';
import type { Instance, Service, ServiceName } from '../model/service.ts';
import type { ConnectionEntry } from './connections.ts';
import type { Origin } from './origin.ts';

/** Where a captured connection goes; what route.lookup answers, seen from here. */
export type OutboundRoute =
  | { readonly kind: 'service'; readonly service: Service }
  | { readonly kind: 'instance'; readonly service: Service; readonly instance: Instance }
  /** Services that share the address; what is not for one of them goes on to it, unless one is strict. */
  | { readonly kind: 'shared'; readonly services: readonly Service[]; readonly strict: boolean }
  | { readonly kind: 'passthrough' }
  | { readonly kind: 'refuse'; readonly reason: EndReason };

/** A stream through another agent. */
export interface AgentStream extends Channel {
  /** Bytes of the caller that have left: from the first one on it may have been heard. */
  readonly bytesSent: number;
  /** For how long, in ms, its tunnel has owed a sign of life, or the dial for it was not answered. */
  readonly silence: number;
  /** It is in a tunnel that has owed a sign of life for so long that a new stream would get another one. */
  readonly doubtful: boolean;
  /** No answer for too long: the tunnel has to prove that it lives, or it is lost with everything in it. */
  doubt(): void;
}

/** A way to an instance, opened. */
export interface OpenedPath {
  readonly channel: Channel;
  readonly path: ConnectionPath;
  /** True when another agent stands between, so that its failure is not the instance's. */
  readonly viaAgent: boolean;
  /** The channel, where it is a stream to that agent. */
  readonly agent?: AgentStream;
  /** It goes past an agent that could not be reached. */
  readonly past?: true;
}

/** Told when a pick is over: how it went, for outlier ejection and least connections. */
export interface PickToken {
  /** The instance was reached. */
  connected(): void;
  /** It could not be reached, or did not answer as it should. */
  failed(): void;
  /** A request was answered with this status, after so many milliseconds; 0: it was heard, perhaps, and never answered. */
  answered(status: number, milliseconds: number): void;
  /** The connection is over. Exactly once, last. */
  finished(): void;
}

/** Narrows the choice of an instance. */
export interface Choice {
  /** Only instances with these labels. */
  readonly subset?: Subset;
  /** Same text, same instance, where the service is balanced by hash. */
  readonly key?: string;
}

/** Bounds on the connections of one service; what was taken is given back to the same. */
export interface ConnectBreaker {
  tryAcquire(resource: 'connections' | 'pending'): boolean;
  release(resource: 'connections' | 'pending'): void;
}

/** What the search for an upstream needs from the stages. */
export interface SearchDependencies {
  pick(service: Service, exclude: ReadonlySet<Instance>, choice?: Choice): Instance | undefined;
  /** An attempt begins: the first one is 1. */
  started(service: Service, instance: Instance, path: ConnectionPath, attempt: number): PickToken;
  /** The way through the mesh; throws nothing, failures arrive as `close`. */
  open(service: Service, instance: Instance, origin: Origin): OpenedPath;
  /** A connection got through to this instance. */
  reached(service: Service, instance: Instance): void;
  /** It could not reach any of these, each for a reason that speaks of the instance. `only`: no other was meant. */
  unreached(service: Service, tried: ReadonlySet<Instance>, only: Instance | undefined): void;
  /** The way past an agent that cannot be reached. */
  past(service: Service, instance: Instance, origin: Origin): Channel;
  /** Calls `expired` once, about then; the answer takes it back. Cheap: there is one for many connections. */
  after(milliseconds: number, expired: () => void): () => void;
  settings(): OutboundSettings;
  /** What operators say of a service, as of now; the same object for as long as it is in use. */
  policy(service: ServiceName): ServicePolicy;
  /** The rate limit that this connection is over, by name; undefined: none. Absent: there are none. */
  overRate?(entry: ConnectionEntry): string | undefined;
  /** Undefined for a service without bounds. */
  breaker(service: ServiceName): ConnectBreaker | undefined;
}

export interface OutboundSettings {
  /** Bound on reaching one instance. */
  readonly connectTimeout: number;
  /** Bound on the way through another agent, where anything else may be tried. */
  readonly agentPatience: number;
  /** Instances tried for one connection. */
  readonly attempts: number;
  /** Bytes of the caller that are kept for another attempt; may be passed by one read. */
  readonly replayBuffer: number;
}

/** After `agentPatience`, another agent has this many times `connectTimeout`: for the way to it, and for its own dial. */
export const AGENT_CONNECTS = 2;
