import type { ErrorCode, ErrorSource } from '../model/errors.ts';

/** Why a channel is over. */
export interface ChannelClose {
  /** `done`: both halves ended. `local`: we called `reset`. Anything else: what went wrong. */
  readonly reason: 'done' | 'local' | ErrorCode;
  /**
   * False only when it is certain that no byte we wrote reached the application at the other end; then, and only
   * then, another instance may be tried. A TCP socket is `delivered: false` until it was connected.
   */
  readonly delivered: boolean;
  /**
   * Whose doing it was, where the channel knows: `peer` when the other agent could not be reached or its tunnel was
   * lost, `callee` when that agent answered that the application refused. A retry treats the two differently.
   */
  readonly source?: ErrorSource;
  /** One sentence for the log. */
  readonly detail?: string;
}

/** What the owner of a channel is told. Calls never nest within the owner's own call of `write`, `end` or `reset`. */
export interface ChannelHandler {
  /** Connected (TCP) or accepted by the far end (tunnel stream). Not called on channels that were accepted. */
  open?(): void;
  /**
   * Bytes arrived. They are the channel's and valid only during this call: copy what you keep. `more`: the end, or
   * other bytes, are known to be there already and follow at once, unless you pause.
   */
  data(bytes: Uint8Array, more?: boolean): void;
  /** The other side will send nothing more (half-close). */
  end(): void;
  /** After `write` returned false: everything pending went out, write again. */
  drain(): void;
  /** The channel is over and its descriptor is free. Exactly once, last. */
  close(why: ChannelClose): void;
}

/** Of a channel that nobody owns: what it says is not heard. */
export const noHandler: ChannelHandler = { data() {}, end() {}, drain() {}, close() {} };

/**
 * A full-duplex byte stream: a TCP socket, a tunnel stream. Starts paused; set `handler`, then `resume()`.
 * Each direction ends by itself. Backpressure is a boolean and a `drain`, as everywhere.
 */
export interface Channel {
  handler: ChannelHandler;
  /**
   * Takes all the bytes, always; copies what cannot go out at once, so the caller may reuse its buffer. Before the
   * channel is open, bytes are kept and go out with the opening. Returns false when the caller should stop until
   * `drain`. Ignored after `end`, `reset` or close (returns true). `more`: another `write`, or `end`, follows at once, so
   * the last of these bytes may wait for it and share its packet.
   */
  write(bytes: Uint8Array, more?: boolean): boolean;
  /** Half-close: nothing more will be written; what is pending still goes out. */
  end(): void;
  /** Aborts both directions; the other side sees a reset (RST, RESET frame), never a clean end. `close` follows. */
  reset(code?: ErrorCode): void;
  /** Stops `data` and `end`; the other side is slowed down by its own flow control. */
  pause(): void;
  resume(): void;
  /** Bytes taken by `write` that have not gone out. Bounded by what the owner writes after `false`. */
  readonly pendingBytes: number;
}
