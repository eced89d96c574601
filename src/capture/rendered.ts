import type { Config } from '../config/schema.ts';
import { withBackstop } from './backstop.ts';
import type { SetPlan } from './capture-plan.ts';
import { type Family, families, type SetRole, setRoles } from './names.ts';
import type { PlannedState, RouteEntry } from './rules/fragment.ts';
import type { RuleInput } from './rules/input.ts';
import { planRules } from './rules/plan.ts';
import { renderRules } from './rules/render.ts';
import { renderSet } from './sets.ts';

/** What is fed to the programs for one family, on a host without a trace of ours. */
export interface RenderedFamily {
  readonly family: Family;
  /** Input of `ipset restore`. */
  readonly sets: string;
  /** Input of `iptables-restore --noflush` or `ip6tables-restore --noflush`. */
  readonly rules: string;
  /** Arguments of `ip -4` or `ip -6`. */
  readonly routes: readonly string[];
}

/** Sets by which strict services are refused. */
const closing: readonly SetRole[] = ['strict', 'hosted', 'beside', 'ports'];

/** Sets that the rules of a state name. */
export function rolesOf(state: PlannedState, mode: Config['capture']['mode']): readonly SetRole[] {
  if (state !== 'applied' || (mode !== 'services' && mode !== 'all')) return closing;
  return mode === 'services' ? setRoles : [...closing, 'down'];
}

/** The arguments of `ip` that put an entry in. */
const routeCommand = ({ family, kind, spec }: RouteEntry): string =>
  `-${family === 'ipv4' ? 4 : 6} ${kind} add ${spec}`;

/**
 * What `mesh-node rules print` shows and `apply` feeds: byte for byte the same on a host without a trace of ours whose
 * kernel has every table.
 */
export function renderAll(
  input: Omit<RuleInput, 'backstop'>,
  sets: SetPlan,
  state: PlannedState = 'applied',
  which: readonly Family[] = families,
): RenderedFamily[] {
  const rules = withBackstop(input, sets, which);
  const roles = rolesOf(state, input.capture.mode);
  return which.map((family) => {
    const plan = planRules(rules, family, state);
    return {
      family,
      sets: roles.map((role) => renderSet(role, family, sets[role][family])).join(''),
      rules: renderRules(plan),
      routes: plan.routes.map(routeCommand),
    };
  });
}
