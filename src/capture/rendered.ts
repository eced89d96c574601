import type { Config } from '../config/schema.ts';
import type { EndpointKey } from '../model/address.ts';
import { type AllowList, parseProtected } from './allow-list.ts';
import { type Family, families } from './names.ts';
import { planRules, type RuleInput, renderRules } from './rules.ts';
import { renderSet, splitFamilies } from './sets.ts';

/** What is fed to the programs for one family, on a host without a trace of ours. */
export interface RenderedFamily {
  readonly family: Family;
  /** Input of `ipset restore`; empty when no set is needed. */
  readonly sets: string;
  /** Input of `iptables-restore --noflush` or `ip6tables-restore --noflush`; empty in mode `off`. */
  readonly rules: string;
}

/** The rules that follow from a configuration; throws a MeshError `configuration` when `protect` cannot be read. */
export function ruleInput(
  options: { readonly config: Config['capture']; readonly uid: number; readonly ports: readonly number[] },
  allowList: AllowList,
): RuleInput {
  const { config, uid, ports } = options;
  return { capture: config, uid, ports, protected: parseProtected(config.protect), allowList };
}

/** What `mesh-node rules print` shows and `apply` feeds: byte for byte the same on a host without a trace of ours. */
export function renderAll(
  input: RuleInput,
  entries: Iterable<EndpointKey>,
  which: readonly Family[] = families,
): RenderedFamily[] {
  const split = splitFamilies(entries);
  return which.map((family) => ({
    family,
    sets: input.capture.mode === 'services' ? renderSet(family, split[family]) : '',
    rules: renderRules(planRules(input, family)),
  }));
}
