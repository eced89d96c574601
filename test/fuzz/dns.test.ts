import fc from 'fast-check';
import { expect, it } from 'vitest';
import { answer } from '../../src/naming/answer.ts';
import { LengthPrefixed } from '../../src/naming/stream-questions.ts';
import { question, readAnswer } from '../unit/naming/questions.ts';
import { nameSpace } from '../unit/naming/sample-names.ts';

const runs = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`dns fuzz: seed ${seed}, ${runs} runs`);

const names = nameSpace();

/** A question that is answered, with some of its bytes changed, cut off or repeated. */
const mutated = fc
  .record({
    name: fc.constantFrom(
      'orders.mesh',
      'ORDERS.mesh',
      '_80._tcp.orders.mesh',
      'many.mesh',
      'shop.mesh',
      'mesh',
      'x.test',
    ),
    type: fc.constantFrom(1, 6, 12, 28, 33, 255, 41, 252),
    edns: fc.option(fc.integer({ min: 0, max: 65_535 }), { nil: undefined }),
    changes: fc.array(fc.tuple(fc.nat(80), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
    cut: fc.option(fc.nat(60), { nil: undefined }),
    tail: fc.uint8Array({ maxLength: 40 }),
  })
  .map(({ name, type, edns, changes, cut, tail }) => {
    const bytes = Buffer.concat([question(name, type, edns === undefined ? {} : { edns }), tail]);
    for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
    return bytes.subarray(0, cut ?? bytes.length);
  });

it('answers whatever arrives without a throw, within what the asker takes, and readably', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        mutated,
        fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes)),
      ),
      (message) => {
        const before = Buffer.from(message);
        for (const transport of ['udp', 'tcp'] as const) {
          const reply = answer(message, transport, names);
          expect(message.equals(before)).toBe(true);
          if (message.length < 12 || (message[2]! & 0x80) !== 0) {
            expect(reply).toBeUndefined();
            continue;
          }
          expect(reply).toBeDefined();
          expect(reply!.length).toBeLessThanOrEqual(transport === 'udp' ? 1232 : 65_535);
          expect(reply!.subarray(0, 2)).toEqual(message.subarray(0, 2));
          const read = readAnswer(reply!);
          // The question comes back byte for byte, or not at all.
          const end = reply!.readUInt16BE(4) === 1 ? 12 + questionBytes(reply!) : 12;
          expect(reply!.subarray(12, end)).toEqual(message.subarray(12, end));
          if (read.truncated) expect(read.answers).toEqual([]);
        }
      },
    ),
    { numRuns: runs, seed },
  );
});

it('leaves nothing of one answer in another', () => {
  fc.assert(
    fc.property(mutated, mutated, (message, other) => {
      const reply = answer(message, 'tcp', names);
      const copy = reply && Buffer.from(reply);
      answer(other, 'tcp', names);
      expect(reply).toEqual(copy);
      expect(answer(message, 'tcp', names)).toEqual(copy);
    }),
    { numRuns: Math.ceil(runs / 10), seed },
  );
});

it('cuts a stream of messages at any split', () => {
  const message = fc.uint8Array({ maxLength: 300 });
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 50 })),
      (messages, sizes) => {
        const stream = Buffer.concat(
          messages.flatMap((one) => [Buffer.from([one.length >> 8, one.length & 0xff]), Buffer.from(one)]),
        );
        const cutter = new LengthPrefixed(4096);
        const got: Buffer[] = [];
        for (let at = 0, i = 0; at < stream.length; i++) {
          const size = sizes[i % Math.max(1, sizes.length)] ?? stream.length;
          got.push(...taken(cutter, stream.subarray(at, at + size)));
          at += size;
        }
        expect(got.map((one) => [...one])).toEqual(messages.map((one) => [...one]));
        expect(cutter.tooLong).toBe(false);
      },
    ),
    { numRuns: Math.ceil(runs / 10), seed },
  );
});

it('takes nothing more after a message that is too long', () => {
  const cutter = new LengthPrefixed(100);
  expect(taken(cutter, Buffer.from([0, 1, 7, 0, 101, 1, 2]))).toEqual([Buffer.from([7])]);
  expect(cutter.tooLong).toBe(true);
  expect(taken(cutter, Buffer.from([0, 1, 7]))).toEqual([]);
});

/** What comes out after this chunk. */
function taken(cutter: LengthPrefixed, chunk: Buffer): Buffer[] {
  const got: Buffer[] = [];
  cutter.push(chunk);
  for (let one = cutter.next(); one !== undefined; one = cutter.next()) got.push(one);
  return got;
}

function questionBytes(reply: Buffer): number {
  let at = 12;
  while (reply[at] !== 0) at += 1 + reply[at]!;
  return at + 5 - 12;
}
