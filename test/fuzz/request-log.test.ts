import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { requestLogLine } from '../../src/telemetry/request-log-line.ts';
import { sampleRequest } from '../unit/telemetry/sample-request.ts';

const runs = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`request log fuzz: seed ${seed}, ${runs} runs`);

/** Bytes as the codec makes text of them, and any other text, short and much too long. */
const anything = fc.oneof(
  fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
  fc.uint8Array({ minLength: 400, maxLength: 1200 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
  fc.string({ unit: 'binary', maxLength: 600 }),
  fc.constantFrom('"}\n{"log":"access"', '\\', '\\u', '\\"', '\ud83d', '/\u2028\u2029\u0000\u007f'),
  fc.constant(undefined),
);

describe('a line about a request', () => {
  it('is one line of ASCII, short, and says of each text how it began, whatever came from outside', () => {
    fc.assert(
      fc.property(
        anything,
        anything,
        anything,
        anything,
        anything,
        (method, authority, target, traceId, detail) => {
          const given = { method, authority, target, traceId, detail };
          const line = requestLogLine({ ...sampleRequest, ...given });
          expect(line).toMatch(/^\{[ -~]*\}\n$/);
          expect(line.length).toBeLessThan(4096);
          const read = JSON.parse(line) as Record<string, unknown>;
          for (const [key, value] of Object.entries(given)) {
            if (value === undefined) expect(read[key]).toBeNull();
            else expect(value.startsWith(read[key] as string)).toBe(true);
          }
          // Nothing from outside becomes, or covers, a field of its own.
          expect(read).toMatchObject({ log: 'request', id: sampleRequest.id, status: sampleRequest.status });
          expect(Object.keys(read)).toHaveLength(
            Object.keys(JSON.parse(requestLogLine(sampleRequest))).length,
          );
        },
      ),
      { numRuns: runs, seed },
    );
  });
});
