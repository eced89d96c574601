import type { Family } from '../names.ts';
import { aliveFragments } from './alive.ts';
import { dnsFragments } from './dns.ts';
import { fallbackRules } from './fallback.ts';
import { type Fragment, type PlannedState, type RouteEntry, type Table, tables } from './fragment.ts';
import type { RuleInput } from './input.ts';
import { observeFragments } from './observe.ts';
import { keepFragment, redirectFragments } from './redirect.ts';
import { strictFragments } from './strict.ts';
import { transparentFragments, transparentRoutes } from './transparent.ts';
import { virtualFragments, virtualRoutes } from './virtual.ts';

/** What one table is to hold of ours. */
export interface TablePlan {
  readonly chains: ReadonlyMap<string, readonly string[]>;
  /** Built-in chain → chains of ours; the jumps to them are its first rules, in this order, each once. */
  readonly jumps: ReadonlyMap<string, readonly string[]>;
}

/** What the tables and routes of one family are to hold of ours. */
export interface FamilyPlan {
  readonly family: Family;
  /** Every table of which something is said; the others are left as they are. */
  readonly tables: ReadonlyMap<Table, TablePlan>;
  readonly routes: readonly RouteEntry[];
}

/** What the concerns add, in the order in which packets are to meet them. */
function fragmentsOf(input: RuleInput, family: Family, state: PlannedState): readonly Fragment[] {
  const { names, uid } = input;
  const { mode, bridges } = input.capture;
  const attended = state !== 'unattended';
  const applied = state === 'applied';
  const fallback = fallbackRules(input.fallback, family, bridges);
  return [
    keepFragment,
    ...(attended ? dnsFragments({ mode, bridges, names, uid }, family) : []),
    ...(applied ? aliveFragments(input, family) : []),
    ...(applied ? redirectFragments(input, family) : []),
    ...(applied ? observeFragments(input, family) : []),
    ...(fallback === undefined ? [] : [fallback]),
    ...strictFragments(input, family),
    ...virtualFragments(input, family),
    ...transparentFragments(input),
  ];
}

/** The rules and routes of one family, as a pure function. */
export function planRules(input: RuleInput, family: Family, state: PlannedState): FamilyPlan {
  return {
    family,
    tables: merge(fragmentsOf(input, family, state)),
    routes: [...virtualRoutes(input, family), ...transparentRoutes(input, family)],
  };
}

/** What a family that is not used is to hold: nothing. */
export function planNothing(family: Family): FamilyPlan {
  return { family, tables: merge([]), routes: [] };
}

/** Tables in which packets are led elsewhere. */
const LEADING: readonly Table[] = ['raw', 'nat'];

/** Nothing but the inert rule where packets are led elsewhere; what marks and refuses is left as it is. */
export function planInert(family: Family): FamilyPlan {
  const inert = merge([keepFragment]);
  return { family, tables: new Map([...inert].filter(([table]) => LEADING.includes(table))), routes: [] };
}

function merge(fragments: readonly Fragment[]): ReadonlyMap<Table, TablePlan> {
  const merged = new Map<Table, { chains: Map<string, readonly string[]>; jumps: Map<string, string[]> }>(
    tables.map((table) => [table, { chains: new Map(), jumps: new Map() }]),
  );
  for (const { table, chains, jumps } of fragments) {
    const into = merged.get(table)!;
    for (const [chain, rules] of chains) into.chains.set(chain, rules);
    for (const [builtin, chain] of jumps) {
      const known = into.jumps.get(builtin);
      if (known === undefined) into.jumps.set(builtin, [chain]);
      else known.push(chain);
    }
  }
  return merged;
}
