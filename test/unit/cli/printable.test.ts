import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { printable, printableJson } from '../../../src/cli/printable.ts';

describe('printable', () => {
  it('shows what a terminal would obey', () => {
    expect(printable('a\u001b[2J\u009b1m\u202eb\r\n\tc\u007f')).toBe('a?[2J?1m?b?\n\tc?');
    expect(printable('Grüße 名前 🎉')).toBe('Grüße 名前 🎉');
  });

  it('keeps the value of JSON', () => {
    fc.assert(
      fc.property(fc.jsonValue({ stringUnit: 'binary' }), (value) => {
        const text = printableJson(JSON.stringify(value, undefined, 2));
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)));
        expect(text).not.toMatch(/(?![\n\t])[\p{Cc}\p{Cf}]/u);
      }),
    );
  });
});
