import { plainRunner } from '../../capture/command.ts';
import { type LiveTable, ownJumps } from '../../capture/live-table.ts';
import { type Family, families } from '../../capture/names.ts';
import { Netfilter } from '../../capture/netfilter.ts';
import type { Table } from '../../capture/rules/fragment.ts';
import { type Check, type CheckResult, type CheckSubject, fail, ok, skip, warn, worst } from './check.ts';

export const AS_ROOT = 'only root may ask iptables';

export const openNetfilter = ({ config }: CheckSubject): Promise<Netfilter> =>
  Netfilter.open(config.capture, plainRunner);

/** Where jumps of ours stand, and what is lost when another rule comes before them. */
const PLACES: readonly (readonly [table: Table, builtins: readonly string[]])[] = [
  ['mangle', ['OUTPUT', 'PREROUTING']],
  ['nat', ['OUTPUT', 'PREROUTING']],
  ['filter', ['INPUT', 'OUTPUT', 'FORWARD']],
  ['security', ['INPUT', 'OUTPUT', 'FORWARD']],
];

/** Targets that decide about a connection, so that rules after them are not asked. */
const DECIDES = /(?:^| )-[jg] (?:ACCEPT|RETURN|REDIRECT|DNAT|DROP|REJECT)\b/;
/** Rules that open nothing: what refuses, only notes or marks; what is about live connections, or comes from this host. */
const OPENS_NOTHING = [
  /(?:^| )-j (?:DROP|REJECT|N?F?LOG|ULOG|MARK|CONNMARK|TCPMSS|SECMARK|CONNSECMARK|TRACE)\b/,
  /(?:^| )--(?:ct)?state (?!\S*NEW)/,
  /(?:^| )-i lo /,
];

/** Rules of other tools that stand before ours: they take connections from redirection, or open what strict services close. */
export const otherRules: Check = {
  name: 'other-rules',
  run: async (subject) => {
    if (!subject.root) return skip(AS_ROOT);
    const netfilter = await openNetfilter(subject);
    const results: CheckResult[] = [];
    const after: string[] = [];
    for (const family of families) {
      const tables = await netfilter.readTables(family).catch(() => undefined);
      for (const [table, builtins] of PLACES) {
        const live = tables?.get(table);
        if (live === undefined) continue;
        for (const builtin of builtins) {
          const { before, others } = shadowing(live, builtin);
          results.push(...before.flatMap((rule) => judged(family, table, builtin, rule)));
          if (table === 'nat' && others > 0) after.push(`${others} in ${family} ${builtin}`);
        }
      }
    }
    const found = worst(results);
    if (found !== undefined) return found;
    return ok(
      after.length === 0
        ? 'no other tool translates addresses'
        : `other tools' rules come after ours: ${after.join(', ')}`,
    );
  },
};

function judged(family: Family, table: Table, builtin: string, rule: string): readonly CheckResult[] {
  const told = `${family} ${table} ${builtin}: "${rule}" stands before ours`;
  const program = family === 'ipv4' ? 'iptables' : 'ip6tables';
  const hint = `the agent moves its own to the front at its next look; if it is put there again and again: ${program} -t ${table} -S ${builtin}`;
  if (table === 'nat')
    return [
      DECIDES.test(rule) ? fail(`${told}: what it takes never meets the mesh`, hint) : warn(told, hint),
    ];
  if (OPENS_NOTHING.some((harmless) => harmless.test(rule))) return [];
  const lost =
    table === 'filter'
      ? 'what it accepts of strict services meets silence in the security table, or nothing where there is none'
      : 'what it accepts of strict services is refused by the other tables only';
  return [warn(`${told}: ${lost}`, hint)];
}

/** Rules that stand before the last of ours and may take TCP, and how many others there are. */
function shadowing(
  table: LiveTable,
  builtin: string,
): { readonly before: readonly string[]; readonly others: number } {
  const rules = table.get(builtin) ?? [];
  const own = new Set(ownJumps(table).flatMap(({ chain, rule }) => (chain === builtin ? [rule] : [])));
  const last = rules.findLastIndex((rule) => own.has(rule));
  const before = rules.slice(0, last + 1).filter((rule) => !own.has(rule) && !/-p (?!tcp|all)/.test(rule));
  return { before, others: rules.length - own.size };
}
