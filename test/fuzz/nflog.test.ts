import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeNetlinkAnswer, decodeNflog } from '../../src/io/nflog.ts';
import { endpointKey, parseEndpoint } from '../../src/model/address.ts';
import { attribute, nflogMessage, tcpSyn } from '../support/nflog-messages.ts';

const runs = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`nflog fuzz: seed ${seed}, ${runs} runs`);

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => [...array]);
const packet = fc.oneof(
  bytes(100),
  fc
    .tuple(fc.ipV4(), fc.ipV4(), fc.nat(65_535), fc.nat())
    .map(([a, b, port, number]) => tcpSyn(a, port, b, 65_535 - port, number)),
  fc
    .tuple(fc.ipV6(), fc.ipV6(), fc.nat(65_535), fc.nat())
    .map(([a, b, port, number]) => tcpSyn(a, port, b, 65_535 - port, number)),
);
const message = fc
  .tuple(
    fc.constantFrom(2, 10, 7),
    fc.array(
      fc.oneof(
        packet.map((content) => attribute(9, content)),
        fc.tuple(fc.constantFrom(1, 4, 11, 12), bytes(8)).map(([type, content]) => attribute(type, content)),
      ),
      { maxLength: 5 },
    ),
  )
  .map(([family, attributes]) => nflogMessage(family, attributes));
/** Messages as they should be, with some bytes changed, and plain noise. */
const datagram = fc.oneof(
  fc.uint8Array({ maxLength: 400 }),
  fc
    .tuple(fc.array(message, { maxLength: 3 }), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }))
    .map(([messages, changes]) => {
      const all = Buffer.concat(messages);
      if (all.length > 0) for (const [at, value] of changes) all[at % all.length] = value;
      return new Uint8Array(all);
    }),
);

describe('NFLOG messages', () => {
  it('never throw, end, and give only addresses that are some', () => {
    fc.assert(
      fc.property(datagram, fc.nat(500), (input, length) => {
        const view = new DataView(input.buffer, input.byteOffset, input.length);
        for (const size of [input.length, length]) {
          let told = 0;
          decodeNflog(view, size, {
            numbered: (number) => {
              told++;
              expect(number >>> 0).toBe(number);
            },
            connection: ({ source, destination, sequence, uid }) => {
              told++;
              expect(parseEndpoint(endpointKey(destination))).toEqual(destination);
              expect(source.port).toBeLessThan(65_536);
              expect(sequence >>> 0).toBe(sequence);
              if (uid !== undefined) expect(uid >>> 0).toBe(uid);
            },
          });
          expect(told).toBeLessThanOrEqual((2 * input.length) / 20 + 2);
          decodeNetlinkAnswer(view, size);
        }
      }),
      { numRuns: runs, seed },
    );
  });
});
