import type { Channel, ChannelClose } from '../io/channel.ts';

/** A channel that may become the upstream, and who wants to know how it began. Made only when it is its turn. */
export interface Candidate {
  readonly channel: Channel;
  /** Milliseconds after which the next candidate is tried beside it; without it only its failure makes room. */
  readonly patience?: number;
  opened?(): void;
  /**
   * It closed before it opened, or (`timeout`) its patience was over and a later one opened first. Not told when it was
   * given up for another reason.
   */
  failed?(why: ChannelClose): void;
}
