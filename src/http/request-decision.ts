import { fieldLine } from '../http1/field-line.ts';
import { requestHeadText } from '../http1/head-writer.ts';
import type { RequestHead } from '../http1/request-head.ts';
import { MeshError } from '../model/errors.ts';
import type { RequestEndReason } from '../model/request.ts';
import { HeadView } from '../policy/match/request-view.ts';
import { Admission, type Held } from './admission.ts';
import type { ExchangeDependencies, ExchangeOwner } from './exchange-owner.ts';
import { forwarding, isLoop } from './forwarding.ts';
import type { RequestJournal } from './request-journal.ts';
import { type RequestPlan, RequestPlanner } from './request-plan.ts';

/** A request that is sent on. */
export interface SentOn {
  readonly kind: 'sent-on';
  readonly plan: RequestPlan;
  /** Its head. */
  readonly text: string;
  /** What it holds until its end; undefined: nothing. */
  readonly admission: Admission | undefined;
}

/** One that the agent answers by itself. */
export interface OwnAnswer {
  readonly kind: 'own-answer';
  readonly status: number;
  readonly reason: RequestEndReason;
  readonly detail: string | undefined;
  /** Further lines of its head. */
  readonly fields: string;
}

/** Decides what becomes of a request: whether it is sent on, to whom and as what. Made once for each. */
export function decide(
  request: RequestHead,
  journal: RequestJournal,
  owner: ExchangeOwner,
  dependencies: ExchangeDependencies,
): SentOn | OwnAnswer {
  if (request.method === 'CONNECT') return ownAnswer(501, 'method-unknown', 'CONNECT is not taken here');
  if (isLoop(request, dependencies.node)) {
    return ownAnswer(508, 'loop', 'the request has passed here too often');
  }
  const { limits, random } = dependencies;
  const service = owner.target.service.name;
  const policy = dependencies.policy(service);
  const planner = RequestPlanner.of(policy);
  const counted = planner.counts ? limits : undefined;
  if (planner.isPlain && counted === undefined) {
    const text = headText(request, planner.plain, journal, owner, dependencies);
    return { kind: 'sent-on', plan: planner.plain, text, admission: undefined };
  }
  const view = new HeadView(request, owner.caller);
  const plan = planner.plan(view, random);
  journal.route = plan.route;
  let planned: SentOn | OwnAnswer;
  try {
    planned =
      plan.redirect === undefined
        ? {
            kind: 'sent-on',
            plan,
            text: headText(request, plan, journal, owner, dependencies),
            admission: undefined,
          }
        : redirected(plan.redirect);
  } catch (error) {
    // What an operator wrote makes no valid head with what the caller wrote.
    if (!(error instanceof MeshError)) throw error;
    return ownAnswer(500, 'configuration', error.message);
  }
  if (counted === undefined) return planned;
  const admission = Admission.ask(counted, service, policy, view);
  if (admission.kind === 'held') return heldBack(admission);
  if (planned.kind === 'sent-on') return { ...planned, admission };
  admission.over();
  return planned;
}

/** The head as it is sent on. Throws a `configuration` MeshError where that would be none. */
function headText(
  request: RequestHead,
  { path, host }: RequestPlan,
  journal: RequestJournal,
  { origin, target }: ExchangeOwner,
  { node, beyond }: ExchangeDependencies,
): string {
  const passage = { node, service: target.service.name, callerIp: origin.address?.ip, beyond };
  const { changes, traceId } = forwarding(request, passage);
  journal.traceId = traceId;
  if (path === undefined && host === undefined) return requestHeadText(request, changes);
  return requestHeadText(request, {
    ...changes,
    ...(path === undefined ? {} : { path }),
    ...(host === undefined ? {} : { authority: host }),
  });
}

function ownAnswer(
  status: number,
  reason: RequestEndReason,
  detail: string | undefined,
  fields = '',
): OwnAnswer {
  return { kind: 'own-answer', status, reason, detail, fields };
}

function redirected({ status, location }: NonNullable<RequestPlan['redirect']>): OwnAnswer {
  return ownAnswer(status, 'redirect', undefined, fieldLine('location', location));
}

function heldBack({ by, detail, retryAfterMs }: Held): OwnAnswer {
  if (retryAfterMs === undefined) return ownAnswer(503, by, detail);
  return ownAnswer(429, by, detail, fieldLine('retry-after', `${Math.ceil(retryAfterMs / 1000)}`));
}
