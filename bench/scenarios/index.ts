import { bulkScenarios } from './bulk.ts';
import { idleScenarios } from './idle.ts';
import { requestScenarios } from './requests.ts';
import type { Scenario } from './scenario.ts';

/** Everything that can be measured, in the order in which it is. */
export const scenarios: readonly Scenario[] = [...requestScenarios, ...bulkScenarios, ...idleScenarios];
