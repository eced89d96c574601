import { describe, expect, it } from 'vitest';
import { type Endpoint, parseEndpoint } from '../../../src/model/address.ts';
import type { NodeName } from '../../../src/model/service.ts';
import { encodeProxyHeader, type KnownCaller } from '../../../src/proxy/proxy-v2.ts';

const SIGNATURE = '0d0a0d0a000d0a515549540a';
const endpoint = (text: string): Endpoint => parseEndpoint(text)!;

function header(caller: Partial<KnownCaller>, destination: string): string {
  const whole: KnownCaller = { address: undefined, node: undefined, program: undefined, ...caller };
  const bytes = Buffer.from(encodeProxyHeader(whole, endpoint(destination)));
  expect(bytes.readUInt16BE(14)).toBe(bytes.length - 16);
  expect(bytes.subarray(0, 12).toString('hex')).toBe(SIGNATURE);
  return bytes.subarray(12).toString('hex');
}

// Vectors written by hand from section 2.2 of the specification.
describe('PROXY protocol v2', () => {
  it('TCP over IPv4', () => {
    expect(header({ address: endpoint('10.0.0.1:40000') }, '192.168.1.2:80')).toBe(
      '2111000c' + '0a000001' + 'c0a80102' + '9c40' + '0050',
    );
  });

  it('TCP over IPv6', () => {
    expect(header({ address: endpoint('[fd00::1]:65535') }, '[2001:db8:0:1::ff]:1')).toBe(
      '21210024' + 'fd000000000000000000000000000001' + '20010db80000000100000000000000ff' + 'ffff' + '0001',
    );
  });

  it('families that differ are both IPv6, IPv4 mapped', () => {
    const mapped = '00000000000000000000ffff0a000001';
    const six = 'fd000000000000000000000000000002';
    expect(header({ address: endpoint('10.0.0.1:1') }, '[fd00::2]:2')).toBe(
      `21210024${mapped}${six}00010002`,
    );
    expect(header({ address: endpoint('[fd00::2]:2') }, '10.0.0.1:1')).toBe(
      `21210024${six}${mapped}00020001`,
    );
  });

  it('LOCAL without an address: the receiver uses the real endpoints', () => {
    expect(header({}, '10.0.0.1:80')).toBe('20000000');
  });

  it('the program and the node are TLVs of the custom range', () => {
    const caller = {
      address: endpoint('10.0.0.1:40000'),
      program: 'unit:shop.service',
      node: 'web-1' as NodeName,
    };
    const program = `e00011${Buffer.from('unit:shop.service').toString('hex')}`;
    const node = `e10005${Buffer.from('web-1').toString('hex')}`;
    expect(header(caller, '192.168.1.2:80')).toBe(`21110028${'0a000001c0a801029c400050'}${program}${node}`);
    expect(header({ node: 'web-1' as NodeName }, '192.168.1.2:80')).toBe(`20000008${node}`);
  });

  it('stays one segment with the longest names there are', () => {
    const caller = {
      address: endpoint('[fd00::1]:65535'),
      program: `unit:${'u'.repeat(265)}`,
      node: 'n'.repeat(253) as NodeName,
    };
    expect(encodeProxyHeader(caller, endpoint('[fd00::2]:1')).length).toBeLessThan(600);
  });
});
