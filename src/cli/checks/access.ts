import type { PoliciesAnswer, ServicesAnswer } from '../../admin/api.ts';
import { type Check, listed, ok, skip, warn } from './check.ts';

/** Services of a list; more are not looked at. */
const MOST_SERVICES = '10000';

/** Access rules hold only for who comes through the agents; permissive services can be reached past them. */
export const accessCheck: Check = {
  name: 'access',
  run: async ({ get }) => {
    const [answer, known] = await Promise.all([
      get<PoliciesAnswer>('/v1/policies'),
      get<ServicesAnswer>('/v1/services', { limit: MOST_SERVICES }),
    ]);
    if (answer === undefined || known === undefined) return skip('the daemon does not run');
    const { common, services } = answer.policies;
    const ruled = known.services.filter(
      ({ name }) => (services[name]?.access ?? common.access) !== undefined,
    );
    const open = ruled.filter(({ mode }) => mode === 'permissive').map(({ name }) => name);
    if (open.length > 0) {
      return warn(
        `access rules of permissive services: ${listed(open)}`,
        'who connects past the agents is not asked; make them strict: docs/operations.md, "Who may call"',
      );
    }
    return ok(
      ruled.length === 0 ? 'no service has access rules' : `rules of ${ruled.length} strict services`,
    );
  },
};
