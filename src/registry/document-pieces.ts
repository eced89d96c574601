import type { CatalogueDocument } from './document.ts';

/** Instances (each service and node counts as one more) of one piece: about three milliseconds of structured clone. */
const PIECE_WEIGHT = 1000;

/** What is asked of the thread: to read a file, or for the next piece of what it read. */
export type Request = { readonly bytes: Uint8Array<ArrayBuffer> } | 'next';

/** What the thread answers. */
export type Answer =
  | { readonly piece: CatalogueDocument; readonly last: boolean }
  | { readonly mistakes: readonly string[] };

/** The document in pieces of bounded weight (one service is never cut); at least one. */
export function* piecesOf(document: CatalogueDocument): Generator<CatalogueDocument, undefined> {
  let piece: CatalogueDocument = { services: [], nodes: [] };
  let weight = 0;
  for (const node of document.nodes) {
    piece.nodes.push(node);
    if (++weight < PIECE_WEIGHT) continue;
    yield piece;
    piece = { services: [], nodes: [] };
    weight = 0;
  }
  for (const service of document.services) {
    piece.services.push(service);
    weight += 1 + service.instances.length;
    if (weight < PIECE_WEIGHT) continue;
    yield piece;
    piece = { services: [], nodes: [] };
    weight = 0;
  }
  yield piece;
}
