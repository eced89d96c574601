import type { CatalogueDocument } from './document.ts';

/**
 * Bytes of one file: about 3,600 services with ten instances each. A parsed file needs 130 times its size of heap, so
 * this bound is also one on memory.
 */
export const MAX_FILE_BYTES = 4 * 1024 * 1024;

/** Turns the bytes of one file into a checked document; asked for one file after the other. */
export interface DocumentReader {
  /** The bytes are given away. Rejects with a DocumentError when the file cannot be used. */
  read(bytes: Uint8Array<ArrayBuffer>): Promise<CatalogueDocument>;
  /** Ends what the reader holds, also a reading that is going on; a later `read` begins anew. */
  close(): Promise<void>;
}
