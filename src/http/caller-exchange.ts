import type { Fields } from '../http1/fields.ts';
import type { HttpRefusal } from '../http1/refusal.ts';
import type { EndReason } from '../model/connection.ts';

/** A request under way, as the connection that it came on sees it. */
export interface CallerExchange {
  /** A piece of its content; a view that is valid during this call. */
  requestContent(piece: Uint8Array): void;
  /** It is complete. */
  requestEnd(trailers: Fields | undefined): void;
  /** What was told is all for now. */
  requestRead(): void;
  /** The rest of the request cannot be read. */
  requestRefused(refusal: HttpRefusal): void;
  /** The caller takes more of the answer. */
  callerDrained(): void;
  /**
   * For how long neither side may say anything while the request lasts, in ms; 0: for ever. Undefined: nobody has said.
   */
  readonly silence: number | undefined;
  /** Neither side has said anything for so long. */
  silent(): void;
  /** The caller's connection is over, or is ended by us. */
  abandon(reason: EndReason, detail: string | undefined): void;
}
