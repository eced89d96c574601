import type { MeshNode, Service } from '../model/service.ts';

/**
 * One line of the catalogue as it is written to disk and read back: which source said what, and when the source
 * last confirmed it (milliseconds since the epoch).
 */
export type CatalogueRecord =
  | {
      readonly kind: 'service';
      readonly source: string;
      readonly confirmedAt: number;
      readonly service: Service;
    }
  | { readonly kind: 'node'; readonly source: string; readonly confirmedAt: number; readonly node: MeshNode };
