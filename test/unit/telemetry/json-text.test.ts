import { describe, expect, it } from 'vitest';
import { jsonText } from '../../../src/telemetry/json-text.ts';

describe('a text', () => {
  it('is null where there is none', () => {
    expect(jsonText(undefined, 8)).toBe('null');
    expect(jsonText('', 8)).toBe('""');
  });

  it.each(['plain', '"', '\\', '\n', '\u0000', '\u007f', 'é', '\u2028', '😀', '\ud800', 'a"b\\c\td'])(
    'is %j again when it is read',
    (value) => {
      const written = jsonText(value, 64);
      expect(written).toMatch(/^[ -~]*$/);
      expect(JSON.parse(written)).toBe(value);
    },
  );

  it.each([
    ['as it is', 'abcdefgh', '"abcdefgh"'],
    ['plain', 'abcdefghi', '"abcdefgh"'],
    ['before an escape that does not fit', 'abcé', '"abc"'],
    ['behind one that fits just so', 'abéd', '"ab\\u00e9"'],
    ['before a short escape', 'abcdefg"', '"abcdefg"'],
    ['behind a short escape', 'abcdef"g', '"abcdef\\""'],
    ['not within two backslashes', '\\\\\\\\\\', '"\\\\\\\\\\\\\\\\"'],
  ])('is cut %s', (_how, value, written) => {
    expect(jsonText(value, 8)).toBe(written);
  });
});
