import type { Channel, ChannelClose } from '../io/channel.ts';

/** A channel that may become the upstream, and who wants to know how it began. Made only when it is its turn. */
export interface Candidate {
  readonly channel: Channel;
  opened?(): void;
  /** It closed before it opened. Not told when we gave it up ourselves. */
  failed?(why: ChannelClose): void;
}
