import { type LiveTable, normalRule, ownChains, ownJumps } from './live-table.ts';
import { type ChainName, chains, type Family } from './names.ts';
import type { FamilyPlan } from './rules.ts';

/** Every way in which the kernel can differ from what was meant. */
type FindingKind =
  | 'chain-missing' // a chain of ours is gone
  | 'chain-changed' // its rules are others
  | 'jump-missing' // nobody leads to it
  | 'jump-misplaced' // not first in its chain: another tool's rules come before
  | 'jump-duplicated' // there more than once
  | 'set-missing'
  | 'set-changed' // members are missing, or there that we did not put
  | 'leftover'; // of ours, but not meant to be there

/** One difference. */
export interface Finding {
  readonly kind: FindingKind;
  readonly family: Family;
  /** The chain or set. */
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

/** What stands in the nat table beside the plan. */
export function compareTable(plan: FamilyPlan, live: LiveTable): Finding[] {
  const { family } = plan;
  const findings: Finding[] = [];
  const found = (kind: FindingKind, subject: string, detail: string): void => {
    findings.push({ kind, family, subject, detail });
  };
  for (const [chain, meant] of plan.chains) {
    const rules = live.get(chain);
    if (rules === undefined) found('chain-missing', chain, 'the chain is gone');
    else {
      const at = firstDifference(meant.map(normalRule), rules.map(normalRule));
      if (at >= 0) {
        const detail = `rule ${at + 1}: found "${rules[at] ?? 'nothing'}", meant "${meant[at] ?? 'nothing'}"`;
        found('chain-changed', chain, detail);
      }
    }
  }
  for (const chain of ownChains(live)) {
    if (!plan.chains.has(chain as ChainName)) found('leftover', chain, 'the chain is not meant');
  }
  const jumps = ownJumps(live);
  for (const [builtin, chain] of plan.jumps) {
    const meant = normalRule(`-j ${chain}`);
    const here = jumps.filter((jump) => jump.chain === builtin && normalRule(jump.rule) === meant);
    if (here.length === 0) found('jump-missing', builtin, `no jump to ${chain}`);
    if (here.length > 1) found('jump-duplicated', builtin, `${here.length} jumps to ${chain}`);
    if (here.length > 0 && normalRule(live.get(builtin)![0]!) !== meant) {
      found('jump-misplaced', builtin, `before the jump to ${chain} stands "${live.get(builtin)![0]}"`);
    }
  }
  for (const { chain, rule } of jumps) {
    const target = plan.jumps.get(chain);
    if (target === undefined || normalRule(rule) !== normalRule(`-j ${target}`)) {
      found('leftover', chain, `the rule "${rule}" is not meant`);
    }
  }
  return findings;
}

/** What a table holds of ours when it should hold nothing. */
export function compareAbsent(family: Family, live: LiveTable): Finding[] {
  const detail = 'nothing is applied, but this is there';
  const ours = [...ownChains(live), ...ownJumps(live).map((jump) => jump.chain)];
  return ours.map((subject) => ({ kind: 'leftover', family, subject, detail }));
}

/** What a withdrawn table still holds that catches connections: it must be nothing. */
export function compareWithdrawn(family: Family, live: LiveTable): Finding[] {
  return ownChains(live)
    .filter((chain) => chain !== chains.keep && live.get(chain)!.length > 0)
    .map((subject) => ({ kind: 'leftover', family, subject, detail: 'withdrawn, but the chain has rules' }));
}

function firstDifference(a: readonly string[], b: readonly string[]): number {
  const length = Math.max(a.length, b.length);
  for (let at = 0; at < length; at++) if (a[at] !== b[at]) return at;
  return -1;
}
