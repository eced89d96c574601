import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Sniffer, type Spoken } from '../../src/detection/sniffer.ts';
import { RequestParser } from '../../src/http1/request-parser.ts';
import { extension, helloMessage, records, serverName } from '../unit/detection/hellos.ts';
import { cutsFor, generate, random } from './http1.generate.ts';

const RUNS = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Date.now() % 2 ** 31);
console.log(`detection fuzz: seed ${seed}, ${RUNS} runs`);

/** What is said first, and after how many bytes. */
function sniff(pieces: readonly Uint8Array[], names: boolean): { spoken: Spoken | undefined; taken: number } {
  const sniffer = new Sniffer(names);
  let taken = 0;
  for (const piece of pieces) {
    const spoken = sniffer.push(piece);
    taken += piece.length;
    if (spoken !== undefined) return { spoken, taken };
  }
  return { spoken: undefined, taken };
}

function cut(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const places = [0, ...new Set(cuts.map((at) => at % (bytes.length + 1))), bytes.length].sort(
    (a, b) => a - b,
  );
  return places.slice(1).map((to, at) => bytes.subarray(places[at], to));
}

/** Whether the codec takes these bytes, as far as they go. */
function takes(bytes: Uint8Array): { readonly head: boolean; readonly refused: boolean } {
  let head = false;
  const parser = new RequestParser({ head: () => (head = true), content: () => {}, end: () => {} });
  try {
    parser.push(bytes);
    return { head, refused: false };
  } catch {
    return { head, refused: true };
  }
}

test('what is taken for HTTP is what the codec takes, however it is cut', () => {
  const next = random(seed);
  let http = 0;
  for (let run = 0; run < RUNS; run++) {
    const bytes = generate(next, 'request');
    const { spoken } = sniff([bytes], false);
    const pieces = cut(bytes, cutsFor(next, bytes.length));
    expect(sniff(pieces, false).spoken).toEqual(spoken);
    if (takes(bytes).head) expect(spoken?.protocol).toBe('http');
    const bytewise = sniff(
      Array.from(bytes.subarray(0, 9000), (byte) => Uint8Array.of(byte)),
      false,
    );
    if (spoken?.protocol !== 'http') continue;
    http++;
    expect(bytewise.spoken).toEqual(spoken);
    // Decided exactly at the end of a line that the codec has not refused.
    const line = bytes.subarray(0, bytewise.taken);
    expect(line.at(-1)).toBe(0x0a);
    expect(takes(line)).toEqual({ head: false, refused: false });
  }
  expect(http).toBeGreaterThan(RUNS / 10);
});

const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 });
const hello = fc
  .tuple(
    fc.array(
      fc.oneof(
        fc.domain().map((name) => serverName(name)),
        fc.string({ maxLength: 30 }).map((name) => serverName(name)),
        fc
          .tuple(fc.nat(60), fc.uint8Array({ maxLength: 300 }))
          .map(([type, value]) => extension(type, value)),
      ),
      { maxLength: 6 },
    ),
    fc.integer({ min: 1, max: 2000 }),
  )
  .map(([extensions, most]) => records(helloMessage(extensions), most));

test('a hello and what it might be mistaken for, whole, bent and cut', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        hello,
        fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
      ),
      changes,
      fc.array(fc.nat(), { maxLength: 8 }),
      fc.boolean(),
      (original, bent, cuts, names) => {
        const bytes = Buffer.from(original);
        if (bytes.length > 0) for (const [at, value] of bent) bytes[at % bytes.length] = value;
        expect(sniff(cut(bytes, cuts), names).spoken).toEqual(sniff([bytes], names).spoken);
      },
    ),
    { numRuns: RUNS, seed },
  );
});

test('the name of a whole hello is found', () => {
  fc.assert(
    fc.property(fc.domain(), fc.integer({ min: 1, max: 300 }), fc.nat(2000), (name, most, padding) => {
      const wire = records(helloMessage([extension(21, Buffer.alloc(padding)), serverName(name)]), most);
      // Records of a byte each make a hello longer than what is looked at.
      if (wire.length < 16_000)
        expect(sniff([wire], true).spoken).toEqual({ protocol: 'tls', name: name.toLowerCase() });
    }),
    { numRuns: RUNS, seed },
  );
});
