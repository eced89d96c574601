import { Packr } from 'msgpackr';
import { describe, expect, test } from 'vitest';
import { MeshError } from '../../../src/model/errors.ts';
import type { InstanceId, NodeName, ServiceName } from '../../../src/model/service.ts';
import { decodeOpen, encodeOpen, type OpenRequest } from '../../../src/tunnel/open-request.ts';

const pack = (value: unknown) => new Packr({ useRecords: false }).pack(value);
const base: OpenRequest = { kind: 'service', service: 'orders' as ServiceName, instance: 'o1' as InstanceId };
const relay: OpenRequest = {
  kind: 'relay',
  service: 'orders' as ServiceName,
  zone: 'dc2',
  node: 'h9' as NodeName,
  hops: 3,
  via: ['h1' as NodeName],
};

describe('OPEN', () => {
  for (const open of [
    base,
    { ...base, callerService: 'shop' as ServiceName, trace: '00-ab-cd-01', deadline: 70_000 },
    relay,
    { ...relay, instance: 'o2' as InstanceId, callerService: 'shop' as ServiceName },
  ] satisfies OpenRequest[]) {
    test(`${JSON.stringify(open)} survives`, () => {
      expect(decodeOpen(encodeOpen(open))).toEqual(open);
    });
  }
  test('the bytes of a service OPEN', () => {
    expect(encodeOpen(base).toString('hex')).toBe('83a16ba773657276696365a173a66f7264657273a169a26f31');
  });
  test('unknown keys are ignored', () => {
    expect(decodeOpen(pack({ k: 'service', s: 'a', i: 'b', future: [1, { x: null }] }))).toEqual({
      kind: 'service',
      service: 'a',
      instance: 'b',
    });
  });
  test('a request that is too long is not sent', () => {
    expect(() => encodeOpen({ ...base, trace: 'x'.repeat(5000) })).toThrow(RangeError);
  });

  const good = { k: 'service', s: 'a', i: 'b' };
  for (const [name, body] of Object.entries({
    'nothing at all': Buffer.alloc(0),
    'no map': pack(['k', 'service']),
    'no kind': pack({ s: 'a', i: 'b' }),
    'another kind': pack({ ...good, k: 'dial' }),
    'no instance': pack({ k: 'service', s: 'a' }),
    'a service name in capitals': pack({ ...good, s: 'ORDERS' }),
    'a service that is a number': pack({ ...good, s: 7 }),
    'an instance with a space': pack({ ...good, i: 'a b' }),
    'a trace with a line break': pack({ ...good, t: 'a\nb' }),
    'a negative deadline': pack({ ...good, d: -1 }),
    'a deadline that is no whole number': pack({ ...good, d: 1.5 }),
    'bytes after the map': Buffer.concat([pack(good), Buffer.from([0xc0])]),
    'a cut map': pack(good).subarray(0, -1),
    'a binary value': pack({ ...good, x: Buffer.from('a') }),
    'an extension (a date)': pack({ ...good, x: new Date(0) }),
    'deep nesting': pack({ ...good, x: [[[[[1]]]]] }),
    'a huge array': Buffer.from('81a16bdcffff', 'hex'),
    'a 32-bit array': Buffer.from('81a16bddffffffff', 'hex'),
    'a relay without hops': pack({ k: 'relay', s: 'a', z: 'z', n: 'n', v: [] }),
    'a relay that passed too many': pack({
      k: 'relay',
      s: 'a',
      z: 'z',
      n: 'n',
      h: 1,
      v: Array(17).fill('n'),
    }),
    'a relay via something else': pack({ k: 'relay', s: 'a', z: 'z', n: 'n', h: 1, v: [7] }),
  })) {
    test(`${name} is a protocol error`, () => {
      expect(() => decodeOpen(body)).toThrow(MeshError);
    });
  }
  test('__proto__ does not reach any prototype', () => {
    const evil = Buffer.concat([
      Buffer.from('84a9', 'hex'),
      Buffer.from('__proto__'),
      Buffer.from('81a173a178', 'hex'),
      pack(good).subarray(3),
    ]);
    expect(decodeOpen(evil)).toEqual({ kind: 'service', service: 'a', instance: 'b' });
    expect(({} as { s?: string }).s).toBeUndefined();
  });
});
