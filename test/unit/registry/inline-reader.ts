import { parseCatalogueDocument } from '../../../src/registry/document.ts';
import type { DocumentReader } from '../../../src/registry/document-reader.ts';

/** Reads files in this process: the thread's program exists only after a build. */
export const inlineReader: DocumentReader = {
  read: async (bytes) => parseCatalogueDocument(bytes),
  close: async () => undefined,
};
