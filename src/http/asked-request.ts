import type { RequestHead } from '../http1/request-head.ts';
import type { Origin } from '../proxy/origin.ts';
import type { SearchScope } from '../proxy/seeker.ts';
import type { Admission } from './admission.ts';
import type { ExchangeDependencies, ExchangeOwner } from './exchange-owner.ts';
import type { Outgoing } from './outgoing.ts';
import type { RequestJournal } from './request-journal.ts';
import type { RequestPlan } from './request-plan.ts';
import type { RetryRule } from './retry-rule.ts';

/** What is asked for, and how. */
export interface AskedRequest {
  readonly request: RequestHead;
  readonly outgoing: Outgoing;
  readonly plan: RequestPlan;
  readonly rule: RetryRule;
  /** Undefined: nothing is counted. */
  readonly admission: Admission | undefined;
}

/** What earlier searches for it came to. */
export type Before = Pick<SearchScope, 'avoid' | 'attempts'>;

/** What narrows the search for an instance that answers it. */
export function scopeOf(asked: AskedRequest, before: Before): SearchScope {
  const { plan, rule } = asked;
  const { choice, timeouts } = plan;
  if (rule.retries === undefined && choice === undefined && timeouts.connect === undefined) return before;
  return {
    ...before,
    ...(choice === undefined ? {} : { choice }),
    ...(timeouts.connect === undefined ? {} : { connectTimeout: timeouts.connect }),
    ...(rule.retries === undefined
      ? {}
      : { most: rule.onConnectFailure ? rule.attempts : 1, permit: () => takesRetry(asked) }),
  };
}

/** Takes one retry from the budget, where there is one; false when none is left. */
export function takesRetry({ rule, admission }: AskedRequest): boolean {
  return rule.retries === undefined || admission === undefined || admission.tryRetry(rule.retries);
}

/** Where it comes from; with the request itself where access rules are asked about it. */
export function originOf(
  { request: { method, path }, plan }: AskedRequest,
  journal: RequestJournal,
  { origin, target }: ExchangeOwner,
  { policy }: ExchangeDependencies,
): Origin {
  if (policy(target.service.name).access === undefined) return origin;
  const request = { method, path: plan.path ?? path };
  return { ...origin, request, noted: (what) => journal.noted(what) };
}
