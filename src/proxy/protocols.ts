import type { Channel } from '../io/channel.ts';
import type { Protocol } from '../model/service.ts';
import type { ConnectionEntry } from './connections.ts';
import type { Origin } from './origin.ts';
import type { FoundUpstream, SearchTarget } from './seeker.ts';

/** What there is already of a connection that is handed on after its first bytes were looked at. */
export interface Begun {
  /** What the caller has sent; the receiver's own. */
  readonly bytes: readonly Uint8Array[];
  /** It will send nothing more. */
  readonly ended: boolean;
  /** A way to an instance of the target that was opened meanwhile, on which nothing was written; the receiver's, with its token. */
  readonly opened?: FoundUpstream;
  /** When that opened, on the clock of `performance.now()`. */
  readonly openedAt?: number;
}

/**
 * Carries connections of one protocol: channel (paused as it is), entry and its `abort` are the handler's from this call on,
 * and it finishes the entry in the end. `begun`: the caller's first bytes were read before; they come first.
 */
export type ProtocolHandler = (
  client: Channel,
  entry: ConnectionEntry,
  origin: Origin,
  target: SearchTarget,
  begun?: Begun,
) => void;

/** Who carries which protocol (docs/protocols.md). What has no handler is carried as it is. */
export type ProtocolHandlers = Readonly<Partial<Record<Protocol, ProtocolHandler>>>;
