import type { Channel } from '../io/channel.ts';
import type { EndReason } from '../model/connection.ts';
import type { Instance, NodeName, Service } from '../model/service.ts';
import type { CallerView } from '../policy/match/request-view.ts';
import type { Origin } from '../proxy/origin.ts';
import type { PickToken, SearchDependencies } from '../proxy/outbound-dependencies.ts';
import type { SearchTarget } from '../proxy/seeker.ts';
import type { RequestLimits } from './admission.ts';
import type { MessageWriter } from './message-writer.ts';
import type { UpstreamPool } from './upstream-pool.ts';

/** What requests need from the stages; composed in the worker. */
export interface ExchangeDependencies extends SearchDependencies {
  readonly node: NodeName;
  readonly pool: UpstreamPool;
  /** Requests go to places outside of the mesh: these are told no more than they have to be. */
  readonly beyond?: true;
  /** A request goes to this instance on a channel that is open already. */
  reusing(service: Service, instance: Instance): PickToken;
  /** Whether the request of this origin may go on a channel to this instance that is open already. */
  mayReuse(service: Service, instance: Instance, origin: Origin): boolean;
  /** Bounds on requests by policy. Absent: there are none. */
  readonly limits?: RequestLimits;
  /** Calls `over` once, after this time and hardly later; the answer takes it back. For few at a time. */
  wait(milliseconds: number, over: () => void): () => void;
  /** From 0 up to 1. */
  random(): number;
}

/** Told when two sides that switched to another protocol are over, and how much they said from then on. */
export type SwitchedEnd = (
  reason: EndReason,
  detail: string | undefined,
  bytes: { readonly sent: number; readonly received: number },
) => void;

/** The caller's connection, as its exchanges see it. */
export interface ExchangeOwner {
  readonly client: Channel;
  /** To the upstream of the running exchange. */
  readonly requests: MessageWriter;
  /** To the caller. */
  readonly answers: MessageWriter;
  readonly origin: Origin;
  readonly target: SearchTarget;
  /** Who calls, as policies see it. */
  readonly caller: CallerView;
  /** Another request may come after this one. */
  readonly stays: boolean;
  /** The caller's bytes are being read: `requestRead` follows. */
  readonly reading: boolean;
  /** Once: an instance of the target to which a way was opened before anything was asked; it waits in the pool. */
  takeOpened(): Instance | undefined;
  /** Request and answer are over. `keep`: another one may follow. */
  over(keep: boolean): void;
  /** An answer that has begun cannot be completed: the caller must not take it for a whole one. */
  broken(reason: EndReason, detail: string | undefined): void;
  /**
   * Both sides speak another protocol from now on; `rest` are the upstream's first bytes of it. `silence`: for how long
   * neither may say anything, in ms; 0: for ever.
   */
  switched(upstream: Channel, rest: Uint8Array, ended: SwitchedEnd, silence?: number): void;
}
