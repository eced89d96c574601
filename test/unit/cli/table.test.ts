import { describe, expect, it } from 'vitest';
import { bytesText, durationText, fields, table } from '../../../src/cli/table.ts';

const columns = [{ title: 'NAME' }, { title: 'COUNT', align: 'right' }] as const;

describe('table', () => {
  it('aligns columns and leaves no blanks at the ends of lines', () => {
    expect(
      table(columns, [
        ['orders', '7'],
        ['a', '1234567'],
      ]),
    ).toBe('NAME      COUNT\norders        7\na       1234567\n');
    expect(table([{ title: 'A' }, { title: 'B' }], [['x', '']])).toBe('A  B\nx\n');
  });

  it('cuts the widest columns to the width of the terminal, and not elsewhere', () => {
    const rows = [['x'.repeat(100), '7']];
    expect(table(columns, rows)).toContain('x'.repeat(100));
    const lines = table(columns, rows, 40).split('\n');
    expect(lines[1]).toHaveLength(40);
    expect(lines[1]).toMatch(/x…\s+7$/);
    expect(table(columns, rows, 1).split('\n')[1]).toMatch(/^x{7}…/);
  });

  it('counts wide letters twice and lets no control character through', () => {
    expect(table(columns, [['日本', '1']])).toBe('NAME  COUNT\n日本      1\n');
    expect(table(columns, [['a\u001b[2Jb\n', '1']])).toContain('a?[2Jb?');
  });
});

it('fields stand below each other', () => {
  expect(
    fields([
      ['a', '1'],
      ['long', '\u0007'],
    ]),
  ).toBe('a     1\nlong  ?\n');
});

it.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1536, '1.5 KiB'],
  [5 * 1024 ** 3, '5.0 GiB'],
])('%d bytes', (bytes, text) => expect(bytesText(bytes)).toBe(text));

it.each([
  [-5, '0ms'],
  [850, '850ms'],
  [59_999, '59s'],
  [200_000, '3m20s'],
  [5 * 3_600_000 + 60_000, '5h1m'],
  [76 * 3_600_000, '3d4h'],
])('%d ms', (ms, text) => expect(durationText(ms)).toBe(text));
