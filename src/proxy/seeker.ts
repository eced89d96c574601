import type { Channel } from '../io/channel.ts';
import type { ConnectionPath, EndReason, FailedAttempt } from '../model/connection.ts';
import type { Instance, InstanceId, Service } from '../model/service.ts';
import type { Choice, OpenedPath, PickToken } from './outbound-dependencies.ts';

/** What is meant: a service, or one instance of it that the caller named by its own address. */
export interface SearchTarget {
  readonly service: Service;
  readonly instance: Instance | undefined;
}

/** Where a search writes down what it does. */
export interface SearchJournal {
  attempts: number;
  instance: InstanceId | undefined;
  zone: string | undefined;
  path: ConnectionPath;
  /** Attempts that came to nothing; there is a list with the first of them. */
  failures: FailedAttempt[] | undefined;
}

/** A way to an instance that is open already, from an earlier use. */
export interface ReusedUpstream {
  readonly channel: Channel;
  readonly path: ConnectionPath;
  readonly token: PickToken;
}

/** What a search comes to. `token` is the seeker's to finish. */
export interface FoundUpstream {
  readonly channel: Channel;
  readonly instance: Instance;
  readonly token: PickToken;
  readonly opened: OpenedPath | undefined;
}

/** What narrows a search. */
export interface SearchScope {
  /** Which instances may be picked. */
  readonly choice?: Choice;
  /** Asked before, in vain: tried again only when nobody else is left. */
  readonly avoid?: ReadonlySet<Instance>;
  /** Attempts before this search; they count as its own. */
  readonly attempts?: number;
  /** Tried before any is picked, where no choice is to be made: a way to it is open already. */
  readonly first?: Instance;
  /** Attempts in all; as the settings say without it. */
  readonly most?: number;
  /** Asked before each further attempt: whether it may be made. Absent: it may. */
  readonly permit?: () => boolean;
  /** Bound on reaching one instance, in ms; 0: none. As the policy of the service and the settings say without it. */
  readonly connectTimeout?: number;
}

/** Who searches. */
export interface Seeker {
  /** An open way to this instance, if there is one to use again. Absent: there never is. */
  reuse?(service: Service, instance: Instance): ReusedUpstream | undefined;
  /**
   * An attempt begins: what the caller has sent so far goes into its channel. `viaAgent`: what follows may, too, as it
   * travels with the opening, which spares a round trip; nothing is gained by that on plain TCP.
   */
  trying(opened: OpenedPath): void;
  /** The first upstream that opened; its handler is the seeker's to set. Over. */
  found(upstream: FoundUpstream): void;
  /** There is none. `delivered`: the caller's bytes may have reached an application. Over. */
  failed(reason: EndReason, detail: string | undefined, delivered: boolean): void;
}
