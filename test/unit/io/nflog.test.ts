import { describe, expect, it } from 'vitest';
import {
  type BegunConnection,
  decodeNetlinkAnswer,
  decodeNflog,
  encodeNflogBind,
} from '../../../src/io/nflog.ts';
import { attribute, nflogMessage, tcpSyn } from '../../support/nflog-messages.ts';

function decode(datagram: Uint8Array): { numbers: number[]; begun: BegunConnection[] } {
  const numbers: number[] = [];
  const begun: BegunConnection[] = [];
  decodeNflog(new DataView(datagram.buffer, datagram.byteOffset, datagram.length), datagram.length, {
    numbered: (number) => numbers.push(number),
    connection: (one) => begun.push(one),
  });
  return { numbers, begun };
}

describe('decodeNflog', () => {
  it('reads connections of both families, with and without a user', () => {
    const v4 = nflogMessage(2, [
      attribute(12, [0, 0, 1, 0]),
      attribute(11, [0, 0, 3, 0xe8]),
      attribute(9, tcpSyn('10.0.0.1', 40_000, '10.0.0.2', 80, 0x01020304)),
    ]);
    const v6 = nflogMessage(10, [
      attribute(4, [0, 0, 0, 7]),
      attribute(9, tcpSyn('fd00::1', 1, 'fd00::2', 65_535, 9)),
      attribute(12, [0, 0, 1, 1]),
    ]);
    expect(decode(v4)).toEqual({
      numbers: [256],
      begun: [
        {
          source: { ip: '10.0.0.1', port: 40_000 },
          destination: { ip: '10.0.0.2', port: 80 },
          sequence: 0x01020304,
          uid: 1000,
          forwarded: false,
        },
      ],
    });
    expect(decode(v6).begun).toEqual([
      {
        source: { ip: 'fd00::1', port: 1 },
        destination: { ip: 'fd00::2', port: 65_535 },
        sequence: 9,
        uid: undefined,
        forwarded: true,
      },
    ]);
    expect(decode(Buffer.concat([v4, v6])).numbers).toEqual([256, 257]);
  });

  it('passes by what is no TCP packet, a fragment, or cut off', () => {
    const syn = tcpSyn('10.0.0.1', 1, '10.0.0.2', 2, 3);
    const changed = (at: number, value: number) => {
      const bytes = [...syn];
      bytes[at] = value;
      return nflogMessage(2, [attribute(9, bytes)]);
    };
    expect(decode(changed(9, 17)).begun).toEqual([]); // UDP
    expect(decode(changed(7, 1)).begun).toEqual([]); // not the first fragment
    expect(decode(changed(0, 0x44)).begun).toEqual([]); // a header of 16 bytes
    expect(decode(changed(0, 0x4f)).begun).toEqual([]); // a header of 60 bytes, and the packet has 40
    for (let length = 0; length < syn.length; length++)
      expect(decode(nflogMessage(2, [attribute(9, syn.slice(0, length))])).begun).toEqual([]);
    const whole = nflogMessage(2, [attribute(9, syn)]);
    for (let length = 0; length < whole.length; length++)
      expect(decode(whole.subarray(0, length)).begun).toEqual([]);
  });
});

it('asks for a group in the form of the kernel', () => {
  const header = ['40000000', '0104', '0500', '01000000', '00000000', '00001234'];
  const command = '0500010001000000';
  const mode = '0a000200000000500200' + '0000';
  const rest = ['0800030000000200', '0800050000000001', '0600060000010000'];
  expect(Buffer.from(encodeNflogBind(0x1234)).toString('hex')).toBe(
    [...header, command, mode, ...rest].join(''),
  );
});

it('reads the kernel’s answer', () => {
  const answer = new DataView(new ArrayBuffer(36));
  answer.setUint16(4, 2, true);
  answer.setInt32(16, -1, true);
  expect(decodeNetlinkAnswer(answer, 36)).toBe(1);
  expect(decodeNetlinkAnswer(answer, 19)).toBeUndefined();
  answer.setInt32(16, 0, true);
  expect(decodeNetlinkAnswer(answer, 36)).toBe(0);
  answer.setUint16(4, 0x400, true);
  expect(decodeNetlinkAnswer(answer, 36)).toBeUndefined();
});
