import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { expect, test } from 'vitest';
import { isPlainMsgpack } from '../../../src/cache/well-formed.ts';

const packr = new Packr({ useRecords: false });

test('everything that is plain data passes, and nothing of it cut or extended', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
      const bytes = packr.pack(value);
      expect(isPlainMsgpack(bytes)).toBe(true);
      expect(isPlainMsgpack(Buffer.concat([bytes, Buffer.from([0])]))).toBe(false);
      for (let i = 0; i < bytes.length; i++) expect(isPlainMsgpack(bytes.subarray(0, i))).toBe(false);
    }),
  );
});

test.each([
  ['an array of four thousand million', 'ddffffffff'],
  ['a map of four thousand million', 'dfffffffff00'],
  ['a string of four thousand million bytes', 'dbffffffff41'],
  ['an extension', 'd40001'],
  ['a long extension', 'c70372616263'],
  ['the byte that is never used', 'c1'],
  ['nothing', ''],
  ['a thousand arrays in each other', `${'91'.repeat(1000)}c0`],
])('%s is refused', (_what, hex) => {
  expect(isPlainMsgpack(Buffer.from(hex, 'hex'))).toBe(false);
});
