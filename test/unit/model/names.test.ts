import { expect, test } from 'vitest';
import { parseInstanceId, parseNodeName, parseServiceName } from '../../../src/model/service.ts';

const label = 'a'.repeat(63);

test.each([
  'a',
  '0',
  'orders',
  'orders.shop',
  'a-b.c-d',
  label,
  `${label}.${label}.${label}.${'a'.repeat(61)}`,
])('%s is a name', (text) => {
  expect(parseServiceName(text)).toBe(text);
  expect(parseNodeName(text)).toBe(text);
});

test.each([
  '',
  '.',
  'a.',
  '.a',
  'a..b',
  '-a',
  'a-',
  'A',
  'a_b',
  'a b',
  'a\n',
  'ä',
  '*',
  `${label}a`,
  `${label}.${label}.${label}.${'a'.repeat(62)}`,
])('%j is no name', (text) => {
  expect(parseServiceName(text)).toBeUndefined();
});

test('a long hostile name is refused quickly', () => {
  // A pattern that backtracks would take years for these.
  for (const text of ['a-'.repeat(100_000), `${'a.'.repeat(120)}!`, `${'a-a'.repeat(80)}!`]) {
    expect(parseServiceName(text)).toBeUndefined();
  }
});

test('an instance id is printable ASCII without spaces', () => {
  expect(parseInstanceId('[fd00::1]:80')).toBe('[fd00::1]:80');
  for (const text of ['', 'a b', 'a\n', 'é', 'a'.repeat(254)]) expect(parseInstanceId(text)).toBeUndefined();
});
