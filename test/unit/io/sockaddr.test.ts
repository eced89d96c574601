import { describe, expect, test } from 'vitest';
import { decodeSocketAddress, encodeSocketAddress } from '../../../src/io/sockaddr.ts';
import { parseIp } from '../../../src/model/address.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

describe('socket addresses', () => {
  test('IPv4 as bytes', () => {
    const address = encodeSocketAddress({ ip: parseIp('10.200.3.255')!, port: 8080 });
    expect(hex(address.bytes.subarray(0, address.size))).toBe('02001f900ac803ff0000000000000000');
    expect([address.family, address.size]).toEqual([2, 16]);
  });
  test('IPv6 as bytes', () => {
    const address = encodeSocketAddress({ ip: parseIp('fd00::1:2')!, port: 443 });
    expect(hex(address.bytes)).toBe('0a0001bb00000000fd00000000000000000000000001000200000000');
    expect([address.family, address.size]).toEqual([10, 28]);
  });
  test.each([
    '0.0.0.0',
    '255.255.255.255',
    '127.0.0.1',
    '::',
    '::1',
    '1::',
    'fe80::1',
    '2001:db8:1:2:3:4:5:6',
    '2001:db8::a:0:0:1',
    'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  ])('%s is the same after encoding and decoding', (text) => {
    for (const port of [1, 255, 256, 65535]) {
      const endpoint = { ip: parseIp(text)!, port };
      expect(decodeSocketAddress(encodeSocketAddress(endpoint).bytes)).toEqual(endpoint);
    }
  });
  test('IPv4-mapped IPv6 is folded', () => {
    const bytes = Buffer.from('0a0000500000000000000000000000000000ffff0a00000100000000', 'hex');
    expect(decodeSocketAddress(bytes)).toEqual({ ip: '10.0.0.1', port: 80 });
  });
  test('other families are no endpoints', () => {
    expect(decodeSocketAddress(new Uint8Array(28))).toBeUndefined();
    expect(decodeSocketAddress(new Uint8Array([1, 0, 0, 0, 0]))).toBeUndefined();
  });
});
