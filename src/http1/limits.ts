/*
 * Bounds of the codec. Each one is exact: the byte that passes it is refused, however the bytes were cut into pieces.
 * Servers of the field take 8 KiB (nginx, one line), 16 KiB (node and HAProxy, the head) and about 100 fields (HAProxy).
 */

/** Bounds of one parser. */
export interface Http1Limits {
  /** Bytes to the end of the request target, or of the reason. RFC 9112, 3, asks for at least 8000. */
  readonly startLine: number;
  /** Bytes of the whole head: start line, fields and all line ends. */
  readonly head: number;
  /** Field lines in a head. */
  readonly fields: number;
  /** Bytes of a trailer section. */
  readonly trailers: number;
  /** Field lines in a trailer section. */
  readonly trailerFields: number;
  /** Methods that are taken beside those of `methods.ts`. */
  readonly methods: ReadonlySet<string>;
}

export const DEFAULT_LIMITS: Http1Limits = {
  startLine: 8 * 1024,
  head: 32 * 1024,
  fields: 128,
  trailers: 8 * 1024,
  trailerFields: 32,
  methods: new Set(),
};

/** Most field lines that may be configured: the shared table of positions has this size. */
export const MAX_FIELDS = 1024;
/** Longest method. */
export const MAX_METHOD = 32;
/** Options in all Connection fields of a message together. */
export const MAX_CONNECTION_OPTIONS = 32;
/** Protocols in all Upgrade fields of a request together. */
export const MAX_UPGRADES = 16;
/** Hexadecimal digits of a chunk size, leading zeros included. */
export const MAX_CHUNK_SIZE_DIGITS = 16;
/** Bytes of the extensions of one chunk. They are checked and dropped. */
export const MAX_CHUNK_EXTENSION = 256;
/** Bytes of the extensions of all chunks of a message; node ends a message at 16 KiB. */
export const MAX_CHUNK_EXTENSIONS = 8 * 1024;
/** Interim answers (100, 103 and the like) before the final one. */
export const MAX_INTERIM = 16;
