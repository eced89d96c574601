import {
  emptyTable,
  type LiveTable,
  type LiveTables,
  normalRule,
  ownChains,
  ownJumps,
} from '../live-table.ts';
import type { Table } from './fragment.ts';
import type { FamilyPlan, TablePlan } from './plan.ts';

const NOTHING: LiveTables = new Map<Table, LiveTable>();

/** True when the jumps of a table are exactly those of the plan: each once, first in their chains, in their order. */
function jumpsStand(plan: TablePlan, live: LiveTable): boolean {
  const meant = [...plan.jumps.values()].reduce((sum, chains) => sum + chains.length, 0);
  if (ownJumps(live).length !== meant) return false;
  return [...plan.jumps].every(([builtin, chains]) =>
    chains.every((chain, at) => normalRule(live.get(builtin)?.[at] ?? '') === normalRule(`-j ${chain}`)),
  );
}

/** True when a chain holds these rules. */
function holds(live: readonly string[] | undefined, meant: readonly string[]): boolean {
  return (
    live?.length === meant.length &&
    live.every((rule, at) => rule === meant[at] || normalRule(rule) === normalRule(meant[at]!))
  );
}

function renderTable(
  table: Table,
  plan: TablePlan,
  live: LiveTable,
  anew: (rules: readonly string[]) => boolean,
): string {
  const changed = [...plan.chains].filter(([chain, rules]) => !holds(live.get(chain), rules) || anew(rules));
  // Chains of another state or version of ours go: nothing leads to them once the rest is done.
  const stale = ownChains(live).filter((chain) => !plan.chains.has(chain));
  const stands = jumpsStand(plan, live);
  if (changed.length === 0 && stale.length === 0 && stands) return '';
  const lines = [`*${table}`];
  for (const chain of [...changed.map(([name]) => name), ...stale]) lines.push(`:${chain} - [0:0]`);
  for (const [chain, rules] of changed) for (const rule of rules) lines.push(`-A ${chain} ${rule}`);
  if (!stands) {
    for (const { chain, rule } of ownJumps(live)) lines.push(`-D ${chain} ${rule}`);
    for (const [builtin, chains] of plan.jumps) {
      for (const [at, chain] of chains.entries()) lines.push(`-I ${builtin} ${at + 1} -j ${chain}`);
    }
  }
  for (const chain of stale) lines.push(`-X ${chain}`);
  return `${lines.join('\n')}\nCOMMIT\n`;
}

/**
 * The exact input of `iptables-restore --noflush` that brings the tables of one family to the plan, one commit for each
 * table, whatever was there: on a host without a trace of ours (the default) it is what `mesh-node rules print` shows.
 * Chains and jumps that stand right are left alone, but for chains that `anew` names; other jumps are taken out and
 * inserted anew in the same commit. Empty when there is nothing to do. A plan of nothing takes every trace of ours out.
 */
export function renderRules(
  plan: FamilyPlan,
  live: LiveTables = NOTHING,
  anew: (rules: readonly string[]) => boolean = () => false,
): string {
  return Array.from(plan.tables, ([table, meant]) =>
    renderTable(table, meant, live.get(table) ?? emptyTable, anew),
  ).join('');
}
