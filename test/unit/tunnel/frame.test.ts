import { describe, expect, test } from 'vitest';
import { errorCodes, MeshError } from '../../../src/model/errors.ts';
import {
  FrameParser,
  MAX_CONTROL_BODY,
  MAX_MESSAGE,
  readCredit,
  readGoaway,
  readHello,
  readPing,
  readReset,
  writeCredit,
  writeGoaway,
  writeHeader,
  writeHello,
  writePing,
  writeReset,
} from '../../../src/tunnel/frame.ts';

type Seen = readonly [type: number, stream: number, hex: string];

/** Parses `bytes` cut at the given places; DATA pieces are joined, so that every cut must give the same. */
function parse(bytes: Buffer, cuts: readonly number[] = []): Seen[] {
  const seen: [number, number, string][] = [];
  let joining = false;
  const parser = new FrameParser({
    frame: (type, stream, body) => {
      joining = false;
      seen.push([type, stream, body.toString('hex')]);
    },
    data: (stream, piece) => {
      const last = seen.at(-1);
      if (joining && last?.[1] === stream) last[2] += Buffer.from(piece).toString('hex');
      else seen.push([4, stream, Buffer.from(piece).toString('hex')]);
      joining = true;
    },
  });
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    parser.push(bytes.subarray(at, cut));
    at = cut;
  }
  expect(parser.atBoundary).toBe(true);
  return seen;
}

function frame(write: (out: Buffer) => number): string {
  const out = Buffer.alloc(1024);
  return out.subarray(0, write(out)).toString('hex');
}

const vectors: readonly (readonly [name: string, hex: string])[] = [
  ['HELLO', '0114000000000000' + '00400000' + '00100000' + '00000000' + '0807060504030201'],
  ['OPEN', '0203000005000000' + '81a16b'],
  ['ACCEPT', '0304000005000000' + '00c00300'],
  ['DATA', '0405000001000080' + '68656c6c6f'],
  ['WINDOW', '0504000006000000' + '01000000'],
  ['END', '0600000007000000'],
  ['RESET', '0705000009000000' + '0900' + '01' + '6e6f'],
  ['GOAWAY', '0808000000000000' + '03000000' + '0a00' + '6279'],
  ['PING', '0908000000000000' + '0100000000000000'],
  ['PONG', '0a08000000000000' + 'ffffffffffffffff'],
  ['an unknown type', 'c803000009000000' + 'aabbcc'],
];

describe('writers give the bytes of docs/tunnel.md', () => {
  const hex = new Map(vectors);
  test('HELLO', () => {
    const hello = { openCredit: 16384, maxStreams: 4096, capabilities: 0, epoch: 0x0102030405060708n };
    expect(frame((out) => writeHello(out, 0, hello))).toBe(hex.get('HELLO'));
    expect(readHello(Buffer.from(hex.get('HELLO')!, 'hex').subarray(8))).toEqual(hello);
  });
  test('ACCEPT and WINDOW', () => {
    expect(frame((out) => writeCredit(out, 0, 3, 5, 245760))).toBe(hex.get('ACCEPT'));
    expect(frame((out) => writeCredit(out, 0, 5, 6, 1))).toBe(hex.get('WINDOW'));
    expect(readCredit(Buffer.from('00c0030099', 'hex'))).toBe(245760);
  });
  test('DATA and END headers, with the largest stream number', () => {
    expect(frame((out) => writeHeader(out, 0, 4, 0x80000001, 5))).toBe('0405000001000080');
    expect(frame((out) => writeHeader(out, 0, 6, 7, 0))).toBe(hex.get('END'));
    expect(frame((out) => writeHeader(out, 0, 4, 1, 0x030201))).toBe('0401020301000000');
  });
  test('RESET', () => {
    const reset = { code: 'overload', delivered: true, detail: 'no' } as const;
    expect(frame((out) => writeReset(out, 0, 9, reset))).toBe(hex.get('RESET'));
    expect(readReset(Buffer.from('0900016e6f', 'hex'))).toEqual(reset);
  });
  test('GOAWAY', () => {
    const goaway = { last: 3, code: 'draining', detail: 'by' } as const;
    expect(frame((out) => writeGoaway(out, 0, goaway))).toBe(hex.get('GOAWAY'));
    expect(readGoaway(Buffer.from('030000000a006279', 'hex'))).toEqual(goaway);
  });
  test('PING and PONG', () => {
    expect(frame((out) => writePing(out, 0, 9, 1n))).toBe(hex.get('PING'));
    expect(frame((out) => writePing(out, 0, 10, 2n ** 64n - 1n))).toBe(hex.get('PONG'));
    expect(readPing(Buffer.from('0100000000000000', 'hex'))).toBe(1n);
  });
  test('every error code survives the wire, and unknown ones are resets', () => {
    for (const code of errorCodes) {
      const bytes = Buffer.from(
        frame((out) => writeReset(out, 0, 1, { code, delivered: false, detail: '' })),
        'hex',
      );
      expect(readReset(bytes.subarray(8)).code).toBe(code);
    }
    expect(readReset(Buffer.from('ffff00', 'hex')).code).toBe('reset');
  });
  test('a detail is cut at 256 bytes between characters, and control characters are shown as ?', () => {
    const long = Buffer.from(
      frame((out) => writeReset(out, 0, 1, { code: 'reset', delivered: false, detail: 'ä'.repeat(200) })),
      'hex',
    );
    expect(readReset(long.subarray(8)).detail).toBe('ä'.repeat(128));
    expect(readReset(Buffer.from('0200000a1b5b', 'hex')).detail).toBe('??[');
  });
});

describe('the parser', () => {
  for (const [name, hex] of vectors) {
    test(`${name}, cut at every place and every two places`, () => {
      const bytes = Buffer.from(hex, 'hex');
      const whole = parse(bytes);
      expect(whole).toHaveLength(1);
      expect(whole[0]![0]).toBe(bytes[0]);
      for (let a = 0; a <= bytes.length; a++) {
        for (let b = a; b <= bytes.length; b++) expect(parse(bytes, [a, b])).toEqual(whole);
      }
    });
  }
  test('all frames in one message, byte by byte', () => {
    const bytes = Buffer.from(vectors.map(([, hex]) => hex).join(''), 'hex');
    const whole = parse(bytes);
    expect(whole).toHaveLength(vectors.length);
    expect(
      parse(
        bytes,
        Array.from(bytes, (_, i) => i),
      ),
    ).toEqual(whole);
  });
  test('an unknown type is skipped without its body', () => {
    expect(parse(Buffer.from('c803000009000000aabbcc', 'hex'))).toEqual([[0xc8, 9, '']]);
  });
  test('a frame longer than a message, and a long control body, are protocol errors', () => {
    const parser = () => new FrameParser({ frame() {}, data() {} });
    const header = (type: number, length: number) => {
      const out = Buffer.alloc(8);
      writeHeader(out, 0, type, 1, length);
      return out;
    };
    expect(() => parser().push(header(4, MAX_MESSAGE))).toThrow(MeshError);
    expect(() => parser().push(header(2, MAX_CONTROL_BODY + 1))).toThrow(MeshError);
    expect(() => parser().push(header(200, MAX_CONTROL_BODY + 1))).not.toThrow();
  });
  test('bodies that are too short are protocol errors', () => {
    for (const read of [readHello, readCredit, readPing, readReset, readGoaway]) {
      expect(() => read(Buffer.alloc(2))).toThrow(MeshError);
    }
  });
  test('stop within a call ends it at once', () => {
    let frames = 0;
    const parser: FrameParser = new FrameParser({
      frame: () => {
        frames++;
        parser.stop();
      },
      data() {},
    });
    parser.push(Buffer.from('06000000070000000600000007000000', 'hex'));
    expect(frames).toBe(1);
  });
});
