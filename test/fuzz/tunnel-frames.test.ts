import { expect, test } from 'vitest';
import { MeshError } from '../../src/model/errors.ts';
import {
  FrameParser,
  readCredit,
  readGoaway,
  readHello,
  readPing,
  readReset,
  writeHeader,
} from '../../src/tunnel/frame.ts';
import { decodeOpen, encodeOpen } from '../../src/tunnel/open-request.ts';
import { MessageParser } from '../../src/tunnel/websocket.ts';

const RUNS = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Date.now() % 2 ** 31);

/** mulberry32: small, seeded, good enough to mutate bytes with. */
function random(from: number): (below: number) => number {
  let state = from;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const readers = [readHello, readCredit, readPing, readReset, readGoaway, decodeOpen];

/** Everything that a peer's bytes meet before they reach a stream. Only a MeshError may come out. */
function feed(
  bytes: Buffer,
  next: (below: number) => number,
): { readonly refused: boolean; readonly handedOn: number } {
  let handedOn = 0;
  const frames = new FrameParser({
    frame: (_type, _stream, body) => {
      handedOn += body.length;
      for (const read of readers) expectMeshError(() => read(body));
    },
    data: (_stream, piece) => {
      handedOn += piece.length;
    },
  });
  const messages = new MessageParser(next(2) === 0, {
    payload: (piece) => frames.push(piece),
    messageEnd: () => {},
    control: (_kind, payload) => {
      handedOn += payload.length;
    },
  });
  const refused = expectMeshError(() => {
    for (let at = 0; at < bytes.length; ) {
      const to = Math.min(bytes.length, at + 1 + next(40));
      messages.push(Buffer.from(bytes.subarray(at, to)));
      at = to;
    }
  });
  return { refused, handedOn };
}

function expectMeshError(action: () => unknown): boolean {
  try {
    action();
    return false;
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return true;
  }
}

/** A valid run of messages with frames, then some bytes changed. */
function generate(next: (below: number) => number): Buffer {
  const parts: Buffer[] = [];
  for (let messages = 1 + next(3); messages > 0; messages--) {
    const frames: Buffer[] = [];
    for (let count = next(4); count > 0; count--) {
      const body = Buffer.from(Array.from({ length: next(4) === 0 ? next(60) : 20 }, () => next(256)));
      const type = next(12);
      const content =
        type === 2 ? encodeOpen({ kind: 'service', service: 'a' as never, instance: 'b' as never }) : body;
      const frame = Buffer.alloc(8 + content.length);
      content.copy(frame, writeHeader(frame, 0, type, next(5), content.length));
      frames.push(frame);
    }
    const payload = Buffer.concat(frames);
    const masked = next(2) === 1;
    const short = payload.length < 126;
    const length = short ? [payload.length] : [126, payload.length >>> 8, payload.length & 255];
    length[0]! |= masked ? 0x80 : 0;
    parts.push(
      Buffer.from([next(20) === 0 ? next(256) : 0x82, ...length, ...(masked ? [0, 0, 0, 0] : [])]),
      payload,
    );
  }
  const bytes = Buffer.concat(parts);
  for (let changes = next(4); changes > 0 && bytes.length > 0; changes--)
    bytes[next(bytes.length)] = next(256);
  return bytes;
}

/** Inputs that were found to go wrong, or that stand for a kind of attack. */
const regressions = [
  '',
  '82',
  '8208020000000100000',
  'ff'.repeat(64),
  '820b0203000001000000de0001',
  '8280',
  '82ff7fffffffffffffff',
];

test('fixed cases', () => {
  for (const hex of regressions) feed(Buffer.from(hex, 'hex'), random(1));
});

test(`${RUNS} generated inputs, seed ${seed}`, () => {
  console.log(`tunnel-frames seed ${seed}`);
  const next = random(seed);
  let refused = 0;
  for (let run = 0; run < RUNS; run++) {
    const bytes = generate(next);
    const result = feed(bytes, next);
    if (result.refused) refused++;
    expect(result.handedOn).toBeLessThanOrEqual(bytes.length);
  }
  // Both kinds must occur, or the generator tests nothing.
  expect(refused).toBeGreaterThan(RUNS / 100);
  expect(refused).toBeLessThan(RUNS * 0.99);
});

test(`${RUNS} generated OPEN bodies, seed ${seed}`, () => {
  const next = random(seed + 1);
  const valid = encodeOpen({
    kind: 'relay',
    service: 'orders' as never,
    zone: 'dc2' as never,
    node: 'h9' as never,
    hops: 3,
    via: ['h1' as never],
  });
  for (let run = 0; run < RUNS; run++) {
    const body = Buffer.from(valid.subarray(0, next(8) === 0 ? next(valid.length) : valid.length));
    for (let changes = next(5); changes > 0 && body.length > 0; changes--)
      body[next(body.length)] = next(256);
    expectMeshError(() => decodeOpen(body));
  }
});
