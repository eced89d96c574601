import { Packr } from 'msgpackr';
import { expect, it } from 'vitest';
import { isPlainMessage, MAX_DEPTH } from '../../../../src/daemon/control/msgpack-form.ts';

const pack = (value: unknown) => new Packr({ useRecords: false }).pack(value);
const plain = (hex: string, most = 100) => isPlainMessage(Buffer.from(hex.replaceAll(' ', ''), 'hex'), most);

it.each([
  ['what is not there', undefined],
  ['nothing', null],
  ['numbers', [0, 127, 128, -1, -33, 65_536, 2 ** 40, -(2 ** 40), 0.5, 1n << 60n]],
  ['texts of every length', ['', 'a'.repeat(31), 'b'.repeat(32), 'ü'.repeat(300), 'c'.repeat(70_000)]],
  ['lists of every length', [[], new Array(15).fill(1), new Array(16).fill(1), new Array(70_000).fill(true)]],
  [
    'objects',
    { a: { b: { c: [] } }, ...Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`k${i}`, i])) },
  ],
])('takes what is sent: %s', (_what, value) => {
  expect(isPlainMessage(pack(value), 100_000)).toBe(true);
});

it.each([
  ['nothing at all', ''],
  ['a type that does not exist', 'c1'],
  ['more than one value', 'c0 c0'],
  ['a list that is shorter than it says', '93 c0 c0'],
  ['a list of four billion', 'dd ff ff ff ff c0'],
  ['a map without its last value', '82 a1 61 01 a1 62'],
  ['a map of four billion', 'df ff ff ff ff'],
  ['a text that is cut off', 'a3 61 62'],
  ['a text of four gigabytes', 'db ff ff ff ff 61'],
  ['a length that is cut off', 'dc 00'],
  ['a number that is cut off', 'cb 00 00'],
  ['binary', 'c4 01 00'],
  ['a date', 'd6 ff 00 00 00 00'],
  ['an extension of another type', 'd4 01 00'],
  ['an extension that is cut off', 'd4 00'],
])('refuses %s', (_what, hex) => {
  expect(plain(hex)).toBe(false);
});

it('bounds depth and values', () => {
  expect(plain(`${'91'.repeat(MAX_DEPTH - 1)}c0`)).toBe(true);
  expect(plain(`${'91'.repeat(MAX_DEPTH)}c0`)).toBe(false);
  expect(plain('93 c0 c0 c0', 4)).toBe(true);
  expect(plain('93 c0 c0 c0', 3)).toBe(false);
});
