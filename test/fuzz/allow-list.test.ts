import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatAllowEntry, parseAllowList } from '../../src/capture/allow-list.ts';
import { resolveExemptions, type Surroundings } from '../../src/capture/exemptions.ts';
import type { Family } from '../../src/capture/names.ts';
import type { Exemption } from '../../src/capture/rules/exemption.ts';
import { NOTHING_SAID, ruleBase } from '../../src/capture/rules/input.ts';
import { planRules } from '../../src/capture/rules/plan.ts';
import { renderRules } from '../../src/capture/rules/render.ts';
import type { Ip } from '../../src/model/address.ts';
import { captureConfig } from '../support/wanted.ts';

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

/** Every name of a list means something. */
const everythingThere: Surroundings = {
  addresses: () => ['10.1.2.3', 'fd00::3'] as Ip[],
  hostProblem: () => undefined,
  uidOf: () => 7,
  cgroupOf: (unit) => ({ path: `system.slice/${unit}`, inode: 1 }),
  hasUnits: true,
};
const base = { ...NOTHING_SAID, ...ruleBase(captureConfig({ mode: 'all', protect: [] }), 1, []) };
const linesOf = (exempt: readonly Exemption[], family: Family) =>
  renderRules(planRules({ ...base, exempt }, family, 'applied')).split('\n');
/** What stands whatever a list says. */
const usual = { ipv4: new Set(linesOf([], 'ipv4')), ipv6: new Set(linesOf([], 'ipv6')) };

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
        const { exempt } = resolveExemptions(entries, { users: [], units: [] }, everythingThere);
        for (const family of ['ipv4', 'ipv6'] as const) {
          const shape =
            /^-A MESH_[A-Z_]+ (?:[-A-Za-z0-9.:/_ ]+|-m cgroup --path "system\.slice\/(?:[a-zA-Z0-9:_.@-]|\\\\)+" -j RETURN)$/;
          for (const rule of linesOf(exempt, family))
            if (!usual[family].has(rule)) expect(rule).toMatch(shape);
        }
      }),
      { numRuns: runs, seed },
    );
  });
});
