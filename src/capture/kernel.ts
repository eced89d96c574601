import type { SetPlan } from './capture-plan.ts';
import { bindingsOf, withCgroups } from './cgroups.ts';
import { DestinationSets } from './destination-sets.ts';
import { type Family, families, type SetRole } from './names.ts';
import type { Backend, Netfilter } from './netfilter.ts';
import { rolesOf } from './rendered.ts';
import { Routes } from './routes.ts';
import { isCgroupRule } from './rules/exemption.ts';
import type { PlannedState, RouteEntry } from './rules/fragment.ts';
import type { RuleInput } from './rules/input.ts';
import { type FamilyPlan, planInert, planNothing, planRules } from './rules/plan.ts';
import { renderRules } from './rules/render.ts';
import { compareTables, type Finding } from './verify.ts';

/** What was put in last, and is to stand. */
interface Standing {
  readonly roles: readonly SetRole[];
  readonly plan: (family: Family) => FamilyPlan;
  /** False: what routes there are is of no concern. */
  readonly routes: boolean;
}

/** What must differ for the rules to be looked at again. */
interface Restored {
  readonly state: PlannedState;
  readonly input: RuleInput;
  readonly bindings: string;
}

/** The tables, sets and routes of this host, and what is known to stand in them. */
export class Kernel {
  readonly #netfilter: Netfilter;
  readonly #sets: DestinationSets;
  readonly #routes: Routes;
  #standing: Standing = { roles: [], plan: planNothing, routes: true };
  /** Undefined: anything may stand there. */
  #restored: Restored | undefined;
  /** What the rules about control groups were bound to when they were put in. */
  #bindings: string | undefined;

  constructor(netfilter: Netfilter) {
    this.#netfilter = netfilter;
    this.#sets = new DestinationSets(netfilter);
    this.#routes = new Routes(netfilter);
  }

  get backend(): Backend {
    return this.#netfilter.backend;
  }

  counts(role: SetRole): Readonly<Record<Family, number>> {
    return this.#sets.counts(role);
  }

  /** Forgets what is believed to stand: the next change looks at everything. */
  distrust(): void {
    this.#sets.distrust();
    this.#restored = undefined;
  }

  /**
   * Makes the kernel hold what a state means: sets first (strict ones before others) and routes, then the rules that name
   * them; then sets that nothing names any more go. `exists` tells whether there is a control group.
   */
  async hold(
    state: PlannedState,
    input: RuleInput,
    sets: SetPlan,
    exists: (cgroup: string) => boolean,
  ): Promise<void> {
    const roles = rolesOf(state, input.capture.mode);
    const bindings = bindingsOf(input);
    const before = this.#restored;
    await this.#sets.set(sets, roles);
    if (before?.state === state && before.bindings === bindings && sameInput(before.input, input)) return;
    this.#restored = undefined;
    let there = withCgroups(input, exists);
    const plan = (family: Family): FamilyPlan =>
      this.backend.families.includes(family) ? planRules(there, family, state) : planNothing(family);
    this.#standing = { roles, plan, routes: true };
    await this.#setRoutes((family) => plan(family).routes);
    const rebind = bindings !== this.#bindings;
    await this.#netfilter.change((live, family, last) => {
      // At the last attempt without any control group: nothing else may depend on one.
      there = withCgroups(input, last ? () => false : exists);
      return renderRules(plan(family), live, (rules) => rebind && rules.some(isCgroupRule));
    });
    this.#bindings = bindings;
    // Withdrawn for a while, the larger sets stay as they are: filling them again takes longer.
    if (state !== 'withdrawn') await this.#sets.keepOnly(roles);
    this.#restored = { state, input, bindings };
  }

  /** Somebody keeps taking rules away: what redirects goes, what others left standing of the rest is theirs to judge. */
  async stayOut(): Promise<void> {
    await this.#change({ roles: [], plan: planInert, routes: false });
  }

  /** Takes everything of ours out, of whatever version. */
  async remove(): Promise<void> {
    await this.#change({ roles: [], plan: planNothing, routes: true });
    await this.#setRoutes(() => []);
    await this.#sets.keepOnly([]);
  }

  async #setRoutes(routes: (family: Family) => readonly RouteEntry[]): Promise<void> {
    for (const family of families) {
      const set = this.#routes.set(family, routes(family));
      // A family that is not used may not even be there.
      await (this.backend.families.includes(family) ? set : set.catch(() => undefined));
    }
  }

  async #change(standing: Standing): Promise<void> {
    this.#restored = undefined;
    this.#bindings = undefined;
    this.#standing = standing;
    await this.#netfilter.change((live, family) => renderRules(standing.plan(family), live));
  }

  /** How the kernel differs from what was put in; `members` compares every member of the sets, not only their number. */
  compare(members: boolean): Promise<Finding[]> {
    return this.#compare(this.#standing, this.#sets, members);
  }

  /** How it differs from what another process is to have put in. */
  compareWith(state: PlannedState, input: RuleInput, sets: SetPlan): Promise<Finding[]> {
    const roles = rolesOf(state, input.capture.mode);
    const assumed = new DestinationSets(this.#netfilter);
    // What is down by experience only the agent knows.
    assumed.assume(
      sets,
      roles.filter((role) => role !== 'down'),
    );
    const plan = (family: Family): FamilyPlan => planRules(input, family, state);
    return this.#compare({ roles, plan, routes: true }, assumed, true);
  }

  async #compare(standing: Standing, sets: DestinationSets, members: boolean): Promise<Finding[]> {
    const findings: Finding[] = [];
    for (const family of this.backend.families) {
      const plan = standing.plan(family);
      findings.push(...compareTables(plan, await this.#netfilter.readTables(family)));
      if (standing.routes) findings.push(...(await this.#routes.compare(family, plan.routes)));
    }
    if (standing.roles.length > 0) findings.push(...(await sets.compare(standing.roles, members)));
    return findings;
  }
}

/** True when every part is the same value. */
function sameInput(a: RuleInput, b: RuleInput): boolean {
  return (Object.keys(a) as (keyof RuleInput)[]).every((key) => a[key] === b[key]);
}
