import { expect, test } from 'vitest';
import { encodeMap } from '../../../src/registry/msgpack.ts';
import { readMembers, SerfCodec } from '../../../src/registry/serf-rpc.ts';
import { pack } from './serf-agent.fake.ts';

test('a request is a header and a body, in the older format', () => {
  const codec = new SerfCodec();
  const { seq, bytes } = codec.request('handshake', { Version: 1 }, 'plain');
  expect(seq).toBe(1);
  const expected = '82a7436f6d6d616e64a968616e647368616b65a3536571' + '01' + '81a756657273696f6e01';
  expect(Buffer.from(bytes).toString('hex')).toBe(expected);
  // A key of 40 bytes has the 16-bit length: older agents do not know the 8-bit one.
  expect(encodeMap({ AuthKey: 'k'.repeat(40) }).toString('hex')).toMatch(/^81a7417574684b6579da00286b6b/);
  expect(encodeMap({ Seq: 70_000 }).toString('hex')).toBe('81a3536571ce00011170');
});

test('a refused request is answered twice by real agents; the second is not heard', () => {
  const codec = new SerfCodec();
  const { seq } = codec.request('stream', { Type: '*' }, 'stream');
  const refused = pack({ Seq: seq, Error: 'Authentication required' });
  expect(codec.push(Buffer.concat([refused, refused]))).toEqual([
    { seq, error: 'Authentication required', body: undefined },
  ]);
});

test('addresses of both families; members that cannot be read are counted', () => {
  const codec = new SerfCodec();
  const { seq } = codec.request('members', undefined, 'body');
  const one = (Name: unknown, Addr: Uint8Array) => ({ Name, Addr, Status: 'alive', Tags: null });
  const mapped = Buffer.from('00000000000000000000ffff0a000001', 'hex');
  const entries = [
    { ...one('a', Buffer.from([10, 0, 0, 1])), Tags: { zone: 'z' } },
    { ...one('b', mapped), Tags: {} },
    { ...one('c', Buffer.from('fd000000000000000000000000000001', 'hex')), Tags: {} },
    one('no tags', Buffer.from([10, 0, 0, 1])),
    { ...one('short', Buffer.from([1, 2, 3])), Tags: {} },
    { ...one(5, Buffer.from([10, 0, 0, 1])), Tags: {} },
    'text',
  ];
  const [answer] = codec.push(Buffer.concat([pack({ Seq: seq, Error: '' }), pack({ Members: entries })]));
  const { members, unreadable } = readMembers(answer!.body!);
  expect(members.map(({ name, ip }) => `${name} ${ip}`)).toEqual([
    'a 10.0.0.1',
    'b 10.0.0.1',
    'c fd00::1',
    'no tags 10.0.0.1',
  ]);
  expect(unreadable).toBe(3);
});
