import { describe, expect, it } from 'vitest';
import { FieldNames } from '../../../src/http1/field-names.ts';
import { type Fields, NO_FIELDS } from '../../../src/http1/fields.ts';
import { readRequests } from './record.ts';

function read(lines: string): { fields: Fields; refusal: string | undefined } {
  const bytes = Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\n${lines}\r\n`, 'latin1');
  const { heads, refusal } = readRequests(bytes);
  return { fields: heads[0]?.fields ?? NO_FIELDS, refusal };
}

describe('field lines (RFC 9112, 5)', () => {
  it('keep their order, their spelling and their bytes', () => {
    const { fields } = read('X-B:1\r\nx-a: \t caf\xe9 \t\r\nX-b:\r\n');
    expect(fields.count).toBe(4);
    expect([0, 1, 2, 3].map((index) => fields.rawName(index))).toEqual(['Host', 'X-B', 'x-a', 'X-b']);
    expect([0, 1, 2, 3].map((index) => fields.name(index))).toEqual(['host', 'x-b', 'x-a', 'x-b']);
    expect([0, 1, 2, 3].map((index) => fields.value(index))).toEqual(['a', '1', 'caf\xe9', '']);
  });

  it.each([
    ['X A: 1\r\n', 'field-name'],
    ['X-A : 1\r\n', 'field-name'],
    ['X-A\t: 1\r\n', 'field-name'],
    [': 1\r\n', 'field-name'],
    ['X-A\r\n', 'field-name'],
    ['X\0A: 1\r\n', 'field-name'],
    ['X\x7f: 1\r\n', 'field-name'],
    ['X\xe9: 1\r\n', 'field-name'],
    ['"X": 1\r\n', 'field-name'],
    ['X-A: 1\0\r\n', 'field-value'],
    ['X-A: \x01\r\n', 'field-value'],
    ['X-A: \x0b1\r\n', 'field-value'],
    ['X-A: 1\x7f\r\n', 'field-value'],
    ['X-A: 1\n', 'line-end'],
    ['X-A: 1\rX-B: 2\r\n', 'line-end'],
    ['X-A: 1\r\r\n', 'line-end'],
    ['X-A\n: 1\r\n', 'line-end'],
    ['\n', 'line-end'],
    ['X-A: 1\r\n 2\r\n', 'obs-fold'],
    ['X-A: 1\r\n\t2\r\n', 'obs-fold'],
    ['X-A:\r\n 1\r\n', 'obs-fold'],
    [' \r\n', 'obs-fold'],
  ])('%j is refused: %s', (lines, reason) => {
    expect(read(lines).refusal).toBe(reason);
  });

  it('are refused when the first one begins with white space (RFC 9112, 2.2)', () => {
    expect(readRequests(Buffer.from('GET / HTTP/1.1\r\n Host: a\r\n\r\n')).refusal).toBe('obs-fold');
  });
});

describe('Fields', () => {
  const { fields } = read('Cookie: a=1\r\nAccept: x\r\nCOOKIE: b=2\r\naccept: y\r\nX^~: 1\r\n');

  it('finds names without regard to case', () => {
    expect(fields.get('cookie')).toBe('a=1');
    expect(fields.getAll('accept')).toEqual(['x', 'y']);
    expect(fields.has('x-none')).toBe(false);
    expect(fields.get('x-none')).toBeUndefined();
    expect(fields.indexOf('cookie', 2)).toBe(3);
    expect(fields.indexOf('cookie', 4)).toBe(-1);
  });

  it('does not take other characters for the other case', () => {
    expect(fields.has('x^~')).toBe(true);
    // ^ and ~ differ in the same bit as a letter's cases do.
    expect(fields.has('x~~')).toBe(false);
    expect(fields.has('x^^')).toBe(false);
  });

  it('joins the lines of a list', () => {
    expect(fields.joined('accept')).toBe('x, y');
    expect(fields.joined('cookie')).toBe('a=1; b=2');
    expect(fields.joined('host')).toBe('a');
    expect(fields.joined('x-none')).toBeUndefined();
  });
});

describe('FieldNames', () => {
  it('finds names in a text, of any length', () => {
    const long = 'x-'.repeat(30);
    const names = new FieldNames(['Accept', 'x-a', long]);
    const includes = (name: string): boolean => names.includes(`..${name}..`, 2, 2 + name.length);
    expect(['accept', 'ACCEPT', 'X-A', long.toUpperCase()].map(includes)).toEqual([true, true, true, true]);
    expect(['accepT2', 'x-b', '', `${long}y`, 'y'.repeat(60)].map(includes)).toEqual([
      false,
      false,
      false,
      false,
      false,
    ]);
  });
});
