import {
  emptyTable,
  type LiveTable,
  type LiveTables,
  normalRule,
  ownChains,
  ownJumps,
} from './live-table.ts';
import type { Family } from './names.ts';
import type { Table } from './rules/fragment.ts';
import type { FamilyPlan, TablePlan } from './rules/plan.ts';

/** Every way in which the kernel can differ from what was meant. */
type FindingKind =
  | 'chain-missing' // a chain of ours is gone
  | 'chain-changed' // its rules are others
  | 'jump-missing' // nobody leads to it
  | 'jump-misplaced' // not first in its chain: another tool's rules come before
  | 'jump-duplicated' // there more than once
  | 'set-missing'
  | 'set-changed' // members are missing, or there that we did not put
  | 'route-missing'
  | 'leftover'; // of ours, but not meant to be there

/** One difference. */
export interface Finding {
  readonly kind: FindingKind;
  readonly family: Family;
  /** The chain (of a built-in one: with its table), set, or kind of routing entry. */
  readonly subject: string;
  /** One sentence for people. */
  readonly detail: string;
}

/** Findings that mean rules were taken away: an operator's `iptables -F`, another tool's flush. */
export function isRemoval(finding: Finding): boolean {
  return (
    finding.kind === 'jump-missing' || finding.kind === 'chain-missing' || finding.kind === 'chain-changed'
  );
}

/** What stands in the tables of a family beside the plan. Tables that the plan does not name are left alone. */
export function compareTables(plan: FamilyPlan, live: LiveTables): Finding[] {
  return [...plan.tables].flatMap(([table, meant]) =>
    compareTable(plan.family, table, meant, live.get(table) ?? emptyTable),
  );
}

function compareTable(family: Family, table: Table, plan: TablePlan, live: LiveTable): Finding[] {
  const findings: Finding[] = [];
  const found = (kind: FindingKind, subject: string, detail: string): void => {
    findings.push({ kind, family, subject, detail });
  };
  for (const [chain, meant] of plan.chains) {
    const rules = live.get(chain);
    if (rules === undefined) found('chain-missing', chain, 'the chain is gone');
    else {
      const at = firstDifference(meant, rules);
      if (at >= 0) {
        const detail = `rule ${at + 1}: found "${rules[at] ?? 'nothing'}", meant "${meant[at] ?? 'nothing'}"`;
        found('chain-changed', chain, detail);
      }
    }
  }
  for (const chain of ownChains(live)) {
    if (!plan.chains.has(chain)) found('leftover', chain, `the chain of ${table} is not meant`);
  }
  const jumps = ownJumps(live);
  for (const [builtin, chains] of plan.jumps) {
    const subject = `${table} ${builtin}`;
    for (const [at, chain] of chains.entries()) {
      const meant = normalRule(`-j ${chain}`);
      const here = jumps.filter((jump) => jump.chain === builtin && normalRule(jump.rule) === meant);
      if (here.length === 0) found('jump-missing', subject, `no jump to ${chain}`);
      if (here.length > 1) found('jump-duplicated', subject, `${here.length} jumps to ${chain}`);
      const stands = live.get(builtin)?.[at];
      if (here.length > 0 && normalRule(stands ?? '') !== meant) {
        found(
          'jump-misplaced',
          subject,
          `where the jump to ${chain} is meant stands "${stands ?? 'nothing'}"`,
        );
      }
    }
  }
  for (const { chain, rule } of jumps) {
    const targets = plan.jumps.get(chain) ?? [];
    if (!targets.some((target) => normalRule(rule) === normalRule(`-j ${target}`))) {
      found('leftover', `${table} ${chain}`, `the rule "${rule}" is not meant`);
    }
  }
  return findings;
}

/** The first rule that means something else, or -1. Most are the same text: a long allow-list costs little. */
function firstDifference(a: readonly string[], b: readonly string[]): number {
  const length = Math.max(a.length, b.length);
  for (let at = 0; at < length; at++) {
    if (a[at] !== b[at] && normalRule(a[at] ?? '') !== normalRule(b[at] ?? '')) return at;
  }
  return -1;
}
