import { expect, test } from 'vitest';
import { DocumentError, parseCatalogueDocument } from '../../../src/registry/document.ts';

test('a file that is nested without end is refused, and the process lives', () => {
  expect(() => parseCatalogueDocument('{a: '.repeat(20_000))).toThrow(DocumentError);
});
