import { describe, expect, it } from 'vitest';
import { EXAMPLE } from '../../src/config/documentation.ts';
import { loadConfig } from '../../src/config/load.ts';
import { ConfigError } from '../../src/config/problem.ts';
import { configSchema } from '../../src/config/schema.ts';

const RUNS = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const SEED = Number(process.env['MESH_FUZZ_SEED'] ?? Date.now() % 2 ** 31);

/** mulberry32: small, seeded, good enough to choose pieces. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const WORDS = [
  ...[
    'node',
    'capture',
    'tunnel',
    'registries',
    'zones',
    'gateways',
    'daemon',
    'telemetry',
    'cache',
    'limits',
  ],
  ...['name', 'zone', 'mode', 'port', 'bridges', 'protect', 'type', 'file', 'serf', 'address', 'workers'],
  ...[
    'auto',
    'all',
    '15001',
    '-1',
    '0',
    '1e9',
    '0x10',
    '.inf',
    '.nan',
    '5s',
    '576h',
    '1GiB',
    '/x',
    'null',
    '~',
  ],
  ...[
    '10.0.0.1:1',
    '"[::1]:2"',
    '__proto__',
    'constructor',
    'toString',
    '<<',
    'true',
    '2024-01-01',
    '""',
    "''",
  ],
];
const MARKS = [
  ': ',
  ':',
  '\n',
  '\n  ',
  '\n    ',
  '- ',
  '\n- ',
  '\n  - ',
  '{',
  '}',
  '[',
  ']',
  ', ',
  '? ',
  '| ',
  '>-',
];
const ODD = [
  '&a ',
  '*a',
  '!!str ',
  '!x ',
  '%YAML 1.1\n---\n',
  '---\n',
  '...\n',
  '#',
  '"',
  "'",
  '\t',
  '\r',
  '\0',
  '\ud800',
];

function sample(pick: (below: number) => number): string {
  const parts: string[] = [];
  for (let n = pick(40); n >= 0; n--) {
    const kind = pick(20);
    const from = kind < 9 ? WORDS : kind < 18 ? MARKS : ODD;
    const repeat = pick(200) === 0 ? pick(400) : 1;
    parts.push(from[pick(from.length)]!.repeat(repeat));
  }
  return parts.join('');
}

/** A configuration that can be read, with up to three of its words replaced, doubled or left out. */
function nearlyRight(pick: (below: number) => number): string {
  const parts = EXAMPLE.join('\n').split(/(\b)/);
  for (let n = pick(4); n > 0; n--) {
    const at = pick(parts.length);
    const action = pick(3);
    if (action === 0) parts[at] = WORDS[pick(WORDS.length)]!;
    else if (action === 1) parts.splice(at, 1);
    else parts.splice(at, 0, parts[at]!);
  }
  return parts.join('');
}

/** Flips bytes, so that texts also are no UTF-8. */
function damage(text: string, pick: (below: number) => number): Uint8Array {
  const bytes = Buffer.from(text);
  for (let n = pick(4); n > 0 && bytes.length > 0; n--) bytes[pick(bytes.length)] = pick(256);
  return bytes;
}

describe('configuration text', () => {
  it(`is either read or refused with places: ${RUNS} runs, seed ${SEED}`, () => {
    const pick = generator(SEED);
    let accepted = 0;
    for (let run = 0; run < RUNS; run++) {
      const text = pick(2) === 0 ? Buffer.from(nearlyRight(pick)) : damage(sample(pick), pick);
      const shown = `seed ${SEED}, run ${run}: ${JSON.stringify(Buffer.from(text).toString('latin1'))}`;
      try {
        const config = loadConfig({ file: 'f', text });
        accepted++;
        expect(Object.isFrozen(config), shown).toBe(true);
        expect(Object.keys(config), shown).toEqual(Object.keys(configSchema.shape));
      } catch (error) {
        if (!(error instanceof ConfigError)) throw new Error(shown, { cause: error });
        expect(error.problems.length, shown).toBeGreaterThan(0);
        expect(error.problems.length, shown).toBeLessThanOrEqual(20);
        for (const { line, column } of error.problems) {
          expect(line === undefined || (line >= 1 && column! >= 1), shown).toBe(true);
        }
      }
    }
    expect(accepted).toBeGreaterThan(RUNS / 100);
    expect(Object.hasOwn(Object.prototype, 'port')).toBe(false);
    console.log(`configuration: ${RUNS} runs, seed ${SEED}, ${accepted} accepted`);
  });
});
