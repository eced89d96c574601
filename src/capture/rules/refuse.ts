import { destinationIn, type Family, marks } from '../names.ts';

/*
 * Honest connections: what would be redirected to a service that nobody would answer for is marked and left where it
 * goes (MESH_DOWN), and the filter table refuses it (rules/strict.ts): connect() says ECONNREFUSED. What is not
 * intercepted (allow-list, another user, a withdrawal) is not refused either: it finds out for itself.
 */

const DOWN = 'MESH_DOWN';

/** Chains that {@link downRules} lead to; ACCEPT, so that no other tool leads it somewhere else. */
export const refusing: readonly (readonly [chain: string, rules: readonly string[]])[] = [
  [DOWN, [`-j MARK --set-xmark ${marks.refuse}`, '-j ACCEPT']],
];

/** Come before the redirection. */
export function downRules(family: Family): readonly string[] {
  return [`-p tcp ${destinationIn('down', family)} -j ${DOWN}`];
}
