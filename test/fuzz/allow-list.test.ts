import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatAllowEntry, isDestination, parseAllowList } from '../../src/capture/allow-list.ts';
import { planRules, renderRules } from '../../src/capture/rules.ts';

const runs = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`allow-list fuzz: seed ${seed}, ${runs} runs`);

/** Pieces of the grammar and of its neighbourhood, put together at random, reach deeper than random text. */
const piece = fc.oneof(
  fc.ipV4(),
  fc.ipV6(),
  fc.integer({ min: 0, max: 70_000 }).map(String),
  fc.constantFrom(
    'tcp/',
    'TCP/',
    'udp/',
    'user:',
    'unit:',
    '.service',
    '.slice',
    'db.example.com',
    'a@1',
    'root',
    '\\x2d',
    '*',
    '.',
    '/',
    ':',
    '-',
    '[',
    ']',
    '#',
    ' ',
    '\t',
    '\r',
    '::',
    '%lo',
    '::ffff:',
  ),
  fc.string({ unit: 'binary', maxLength: 8 }),
);
const line = fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join(''));
const text = fc.oneof(
  fc.array(line, { maxLength: 12 }).map((lines) => lines.join('\n')),
  fc.string({ unit: 'binary', maxLength: 200 }),
);

describe('allow-list parser', () => {
  it('never throws, points into the text, and prints what it reads back', () => {
    fc.assert(
      fc.property(text, (input) => {
        const { entries, problems } = parseAllowList(input);
        const lines = input.replace(/^\uFEFF/, '').split('\n');
        for (const problem of problems) {
          const at = lines[problem.line - 1]!;
          expect(problem.column).toBeGreaterThanOrEqual(1);
          expect(problem.column).toBeLessThanOrEqual(at.length);
          expect(problem.found).toMatch(/^[\x20-\x7e]+$/);
        }
        const printed = entries.map(formatAllowEntry);
        expect(new Set(printed).size).toBe(printed.length);
        expect(parseAllowList(printed.join('\n'))).toEqual({ entries, problems: [] });
        // Nothing that a file says can add a line of its own to what iptables-restore is fed.
        for (const family of ['ipv4', 'ipv6'] as const) {
          const capture = { mode: 'all', port: 15001, bridges: [] } as const;
          const rules = renderRules(
            planRules(
              { capture, uid: 1, ports: [], protected: [], allowList: entries.filter(isDestination) },
              family,
            ),
          );
          const shape =
            /^(?:\*nat|COMMIT||:MESH_[A-Z]+ - \[0:0\]|-I OUTPUT 1 -j MESH_OUT|-A MESH_[A-Z]+ [-A-Za-z0-9.:/_ ]+)$/;
          for (const rule of rules.split('\n')) expect(rule).toMatch(shape);
        }
      }),
      { numRuns: runs, seed },
    );
  });
});
