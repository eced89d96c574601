import type { SetPlan } from './capture-plan.ts';
import { type Family, families } from './names.ts';
import type { RuleInput } from './rules/input.ts';

/** The same values for the same answer: rules are looked at again when one is another. */
const CHOICES: readonly (readonly Family[])[] = [[], ['ipv4'], ['ipv6'], families];

/**
 * Says where the security table is to refuse as well: in families whose kernel has that table (`able`), and only while
 * there is something to refuse, since every packet of the host passes through it.
 */
export function withBackstop(
  input: Omit<RuleInput, 'backstop'>,
  sets: Pick<SetPlan, 'strict' | 'ports'>,
  able: readonly Family[],
): RuleInput {
  const needed = (family: Family): boolean =>
    able.includes(family) && sets.strict[family].size + sets.ports[family].size > 0;
  return { ...input, backstop: CHOICES[Number(needed('ipv4')) + 2 * Number(needed('ipv6'))]! };
}
