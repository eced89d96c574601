import { describe, expect, test } from 'vitest';
import { MeshError } from '../../../src/model/errors.ts';
import {
  chooseSubprotocol,
  closeMessage,
  controlMessage,
  MessageParser,
  writeMessageHeader,
} from '../../../src/tunnel/websocket.ts';

/** What a parser hands on for `bytes`, cut at the given places. */
function parse(fromClient: boolean, hex: string, cuts: readonly number[] = []): string[] {
  const bytes = Buffer.from(hex, 'hex');
  const seen: string[] = [];
  let payload = '';
  const parser = new MessageParser(fromClient, {
    payload: (piece) => {
      payload += piece.toString('hex');
    },
    messageEnd: () => {
      seen.push(`message ${payload}`);
      payload = '';
    },
    control: (kind, body) => seen.push(`control ${kind} ${body.toString('hex')}`),
  });
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    parser.push(Buffer.from(bytes.subarray(at, cut)));
    at = cut;
  }
  return seen;
}

describe('RFC 6455 framing', () => {
  test('the highest common subprotocol', () => {
    expect(chooseSubprotocol('mesh-tunnel.v9, mesh-tunnel.v1')).toBe('mesh-tunnel.v1');
    expect(chooseSubprotocol('chat')).toBeUndefined();
    expect(chooseSubprotocol(undefined)).toBeUndefined();
  });
  test('headers of every length, masked and not', () => {
    for (const [length, masked, hex] of [
      [5, false, '8205'],
      [5, true, '828500000000'],
      [125, false, '827d'],
      [126, false, '827e007e'],
      [65535, true, '82feffff00000000'],
      [65536, false, '827f0000000000010000'],
      [262144, true, '82ff000000000004000000000000'],
    ] as const) {
      const out = Buffer.alloc(14, 0xee);
      const at = writeMessageHeader(out, 14, 2, length, masked);
      expect(out.subarray(at).toString('hex')).toBe(hex);
    }
    expect(closeMessage(1002, false).toString('hex')).toBe('880203ea');
    expect(controlMessage(10, Buffer.from('hi'), true).toString('hex')).toBe('8a82000000006869');
  });

  const vectors: readonly (readonly [string, boolean, string, readonly string[]])[] = [
    ['a binary message', false, '820548656c6c6f', ['message 48656c6c6f']],
    ['the masked message of the RFC, as binary', true, '828537fa213d7f9f4d5158', ['message 48656c6c6f']],
    ['a zero mask', true, '82850000000048656c6c6f', ['message 48656c6c6f']],
    [
      'two fragments with a ping between',
      false,
      '020248658900' + '80036c6c6f',
      ['control 9 ', 'message 48656c6c6f'],
    ],
    ['an empty message', false, '8200', ['message ']],
    ['close with a reason', false, '880403e86f6b', ['control 8 03e86f6b']],
    ['a long header', false, `827e0080${'ab'.repeat(128)}`, [`message ${'ab'.repeat(128)}`]],
  ];
  for (const [name, fromClient, hex, expected] of vectors) {
    test(`${name}, cut at every two places`, () => {
      expect(parse(fromClient, hex)).toEqual(expected);
      const length = hex.length / 2;
      for (let a = 0; a <= length; a++) {
        for (let b = a; b <= length; b += 3) expect(parse(fromClient, hex, [a, b])).toEqual(expected);
      }
    });
  }

  for (const [name, fromClient, hex] of [
    ['text', false, '810141'],
    ['an extension bit', false, 'c20141'],
    ['a client without mask', true, '820141'],
    ['a server with mask', false, '82810000000041'],
    ['a message over the bound', false, '827f0000000000040001'],
    ['a length over 2^53', false, '827fffffffffffffffff'],
    ['fragments over the bound together', false, `027e8000${'00'.repeat(32768)}807f0000000000040000`],
    ['a long control frame', false, '897e0080'],
    ['a fragmented control frame', false, '0900'],
    ['a continuation of nothing', false, '8001aa'],
    ['a message within a message', false, '0201aa8201aa'],
    ['an unknown opcode', false, '8301aa'],
    ['an unknown control opcode', false, '8b00'],
  ] as const) {
    test(`refuses ${name}`, () => {
      expect(() => parse(fromClient, hex)).toThrow(MeshError);
    });
  }
});
