import { isIPv4, isIPv6 } from 'node:net';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Endpoint, endpointKey, isIpv6, parseEndpoint, parseIp } from '../../../src/model/address.ts';

describe('parseIp', () => {
  test.each([
    ['10.0.0.1', '10.0.0.1'],
    ['FD00:0:0::0:1', 'fd00::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'], // RFC 5952 §4.2.3: the first of two equal runs
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'], // §4.2.2: a single zero stays
    ['::ffff:10.0.0.1', '10.0.0.1'],
    ['::FFFF:0a00:0001', '10.0.0.1'],
    ['::', '::'],
    ['0:0:0:0:0:0:0:1', '::1'],
  ])('%s is %s', (text, canonical) => {
    expect(parseIp(text)).toBe(canonical);
  });

  test.each([
    '',
    '10.1',
    '0x7f000001',
    '010.0.0.1',
    '10.0.0.256',
    '10.0.0.1.',
    'fe80::1%eth0',
    '1::2::3',
    'web',
    ' 10.0.0.1',
  ])('%j is none', (text) => {
    expect(parseIp(text)).toBeUndefined();
  });

  test('refuses long text at once', () => {
    for (const text of ['1:'.repeat(500_000), '1.'.repeat(500_000), ':'.repeat(1_000_000)]) {
      expect(parseIp(text)).toBeUndefined();
    }
  });

  test('has one text for one address, and Node agrees that it is an address', () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => {
        const ip = parseIp(text)!;
        expect(isIpv6(ip) ? isIPv6(ip) : isIPv4(ip)).toBe(true);
        expect(parseIp(ip)).toBe(ip);
        expect(parseIp(text.toUpperCase())).toBe(ip);
      }),
      { numRuns: 2000 },
    );
  });

  test('takes nothing that Node does not call an address', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'0123456789abcdef:.%x[]') }), (text) => {
        if (parseIp(text) !== undefined) expect(isIPv4(text) || isIPv6(text)).toBe(true);
      }),
      { numRuns: 5000 },
    );
  });
});

describe('parseEndpoint', () => {
  test('reads what endpointKey writes', () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), fc.integer({ min: 1, max: 65535 }), (text, port) => {
        const endpoint: Endpoint = { ip: parseIp(text)!, port };
        expect(parseEndpoint(endpointKey(endpoint))).toEqual(endpoint);
      }),
      { numRuns: 2000 },
    );
  });

  test('folds IPv4-mapped addresses', () => {
    expect(parseEndpoint('[::ffff:10.0.0.1]:80')).toEqual({ ip: '10.0.0.1', port: 80 });
  });

  test.each([
    '',
    '10.0.0.1',
    '10.0.0.1:',
    '10.0.0.1:0',
    '10.0.0.1:65536',
    '10.0.0.1:80x',
    'fd00::1:80',
    '[10.0.0.1]:80',
    '[fd00::1]',
    '[]:80',
    'web:80',
    '[[fd00::1]]:80',
  ])('%j is none', (text) => {
    expect(parseEndpoint(text)).toBeUndefined();
  });
});
