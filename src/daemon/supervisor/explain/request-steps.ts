import type { ExplainStep } from '../../../admin/api.ts';
import type { RateLimit, Retries, Route, ServicePolicy, Subset } from '../../../model/policy.ts';
import { compileRequests } from '../../../policy/match/request.ts';
import type { RequestView } from '../../../policy/match/request-view.ts';
import { type RequestRoute, RequestRoutes } from '../../../route/request-routes.ts';

/** What policies make of a request, before an instance is looked for. */
export interface RequestOutcome {
  readonly steps: readonly ExplainStep[];
  /** Path and query that are sent on. */
  readonly path: string;
  /** Labels of the instances that are chosen from; undefined: all. */
  readonly subset: Subset | undefined;
  /** The agent answers by itself. */
  readonly answered: boolean;
}

/**
 * Goes through the routes, as requests do. Where a share decides, the route is taken as if this request fell into it, and
 * said so.
 */
export function requestSteps(policy: ServicePolicy, view: RequestView): RequestOutcome {
  const details: string[] = [];
  let taken: { readonly route: Route; readonly decided: RequestRoute } | undefined;
  for (const route of policy.routes ?? []) {
    // 0: always within the share, and the first side of the split that has any weight.
    const decided = new RequestRoutes([{ ...route, percent: route.percent > 0 ? 100 : 0 }]).decide(
      view,
      () => 0,
    );
    details.push(`${route.name}: ${routeText(route, decided, taken !== undefined)}`);
    if (taken === undefined && decided !== undefined) taken = { route, decided };
  }
  const text =
    taken === undefined
      ? details.length === 0
        ? 'no routes'
        : 'no route means it'
      : `by route ${taken.route.name}`;
  const steps: ExplainStep[] = [{ title: 'route', text, details }];
  const effects = taken === undefined ? [] : effectsOf(taken.route, taken.decided);
  if (effects.length > 0) steps.push({ title: 'changes', text: effects.join('; '), details: [] });
  const limits = limitsFor(policy.rateLimits ?? [], view);
  if (limits.length > 0) steps.push({ title: 'rate limits', text: 'counted by', details: limits });
  const retries = taken?.decided.retries ?? policy.retries;
  const timeouts = taken?.decided.timeouts ?? policy.timeouts ?? {};
  const bounds = Object.entries(timeouts).map(
    ([name, ms]) => `${name} ${ms === 0 ? 'without bound' : `${ms} ms`}`,
  );
  steps.push({
    title: 'retries',
    text:
      retries === undefined
        ? 'what is lost goes to another instance, where that is safe'
        : retriesText(retries),
    details: bounds.length === 0 ? [] : [`timeouts: ${bounds.join(', ')}`],
  });
  const answered = taken?.decided.redirect !== undefined;
  return { steps, path: taken?.decided.path ?? view.rawPath, subset: taken?.decided.subset, answered };
}

function routeText({ percent }: Route, decided: RequestRoute | undefined, later: boolean): string {
  if (decided === undefined) return percent > 0 ? 'does not match' : 'takes no share';
  const share = percent < 100 ? `, for ${percent} % of such requests` : '';
  return later ? `would match${share}; one before it is taken` : `matches${share}`;
}

function effectsOf(route: Route, decided: RequestRoute): string[] {
  const { path, host, redirect, fault } = decided;
  const effects: string[] = [];
  if (redirect !== undefined) effects.push(`answered with ${redirect.status} to ${redirect.location}`);
  if (path !== undefined) effects.push(`path becomes ${path}`);
  if (host !== undefined) effects.push(`Host becomes ${host}`);
  if (fault?.delay !== undefined) effects.push(`${fault.delay.percent} % wait ${fault.delay.duration} ms`);
  if (fault?.abort !== undefined) effects.push(`${fault.abort.percent} % are answered ${fault.abort.status}`);
  const sides = route.to ?? [];
  const sum = sides.reduce((total, { weight }) => total + weight, 0);
  for (const { subset, weight } of sides.length > 1 ? sides : []) {
    effects.push(`${Math.round((weight * 1000) / sum) / 10} % to ${subsetText(subset)}`);
  }
  return effects;
}

/** Labels, as people write them. */
export function subsetText(subset: Subset): string {
  const labels = Object.entries(subset).map(([name, value]) => `${name}=${value}`);
  return labels.length === 0 ? 'all instances' : labels.join(',');
}

function limitsFor(limits: readonly RateLimit[], view: RequestView): string[] {
  return limits
    .filter(({ matches }) => compileRequests(matches)(view))
    .map(({ name, per, count, interval, burst }) => {
      const whose =
        per.kind === 'header' ? `each ${per.name}` : per.kind === 'caller' ? 'each caller' : 'all together';
      return `${name}: ${count} in ${interval} ms, ${burst} at once, for ${whose}`;
    });
}

function retriesText({ on, statuses, attempts, budget }: Retries): string {
  const conditions = on.map((condition) =>
    condition === 'status' ? `status ${statuses.join(' ')}` : condition,
  );
  return (
    `up to ${attempts} more attempts on ${conditions.join(', ')}; ` +
    `at most ${budget.percent} % of requests and ${budget.perSecond} a second`
  );
}
