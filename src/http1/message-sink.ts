import type { Fields } from './fields.ts';

/** What a parser tells its owner, in this order: head, any number of pieces of content, end. */
export interface MessageSink<Head> {
  head(head: Head): void;
  /** A piece of the content, never empty. The bytes are a view of the chunk: copy what you keep beyond this call. */
  content(piece: Uint8Array): void;
  /** The message is complete. `trailers`: those of a chunked message, if it had any. */
  end(trailers: Fields | undefined): void;
}
