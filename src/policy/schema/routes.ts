import { z } from 'zod';
import { givenDuration } from '../../config/units.ts';
import type { Fault, Redirect, Rewrite, Route, Subset } from '../../model/policy.ts';
import { policyLimits } from '../limits.ts';
import { namesOnce, somethingSaid, withShortForm } from './forms.ts';
import { requestMatches, sticky } from './match.ts';
import { retries, timeouts } from './resilience.ts';
import { hostText, itemName, plainPath, share } from './scalars.ts';

/** As registries take them (docs/registries.md). */
const subset = z
  .record(z.string().min(1).max(128), z.string().max(1024))
  .refine(
    (labels) => Object.keys(labels).length <= policyLimits.labels,
    `expected at most ${policyLimits.labels} labels`,
  )
  .meta({ title: 'map of labels' }) satisfies z.ZodType<Subset>;

const weighted = z.strictObject({
  subset: subset
    .prefault({})
    .describe('Instances that carry all of these labels; without any: all instances.'),
  weight: z.int().min(0).max(1_000_000).default(1).describe('Share among its neighbours; 0: none.'),
});

const split = z
  .array(weighted)
  .min(1)
  .max(policyLimits.subsets)
  .refine((parts) => parts.some(({ weight }) => weight > 0), 'expected one weight at least that is not 0');

const rewrite = z
  .strictObject({
    path: plainPath
      .exactOptional()
      .describe(
        'In place of the part of the path that a `prefix` matched, else of the whole path. The query stays.',
      ),
    host: hostText.exactOptional().describe('Sent on as Host.'),
  })
  .refine(somethingSaid, 'expected path or host') satisfies z.ZodType<Rewrite>;

const redirectStatuses = [301, 302, 303, 307, 308] as const;

const redirect = z
  .strictObject({
    status: z.literal(redirectStatuses).default(302),
    scheme: z.enum(['http', 'https']).exactOptional(),
    host: hostText.exactOptional(),
    path: plainPath.exactOptional().describe('As in `rewrite`; the query stays.'),
  })
  .refine(
    ({ scheme, host, path }) => (scheme ?? host ?? path) !== undefined,
    'expected scheme, host or path: without one of them it leads back to itself',
  ) satisfies z.ZodType<Redirect>;

const always = share.prefault(100).describe('Of the requests of this route.');

const fault = z
  .strictObject({
    delay: withShortForm(
      z.strictObject({ duration: givenDuration(), percent: always }),
      (value) => (typeof value === 'string' ? { duration: value } : value),
      { type: 'string' },
      'duration, or map',
    )
      .exactOptional()
      .describe('Waits before anything else.'),
    abort: withShortForm(
      z.strictObject({ status: z.int().min(400).max(599), percent: always }),
      (value) => (typeof value === 'number' ? { status: value } : value),
      { type: 'integer', minimum: 400, maximum: 599 },
      'status 400–599, or map',
    )
      .exactOptional()
      .describe('Answers in place of an instance.'),
  })
  .refine(somethingSaid, 'expected delay or abort') satisfies z.ZodType<Fault>;

/** What a route that redirects has no use for, because no instance is asked. */
const UNUSED_BY_REDIRECT = ['rewrite', 'to', 'subset', 'sticky', 'timeouts', 'retries'] as const;

const route = z
  .strictObject({
    name: itemName.describe('Shown in metrics, the access log and `mesh-node explain`.'),
    match: requestMatches.exactOptional().describe('Absent: every request.'),
    percent: share
      .prefault(100)
      .describe('Of the requests that match, this share; the others go on to the next route.'),
    sticky: sticky
      .exactOptional()
      .describe('Same text, same choice, for `percent` and the split; absent: every request anew.'),
    to: split.exactOptional().describe('Parts of the service, by weight; absent: all its instances.'),
    subset: subset.exactOptional().describe('In place of `to` with one part.'),
    rewrite: rewrite.exactOptional().describe('Changes what the instance is asked.'),
    redirect: redirect.exactOptional().describe('Sends the caller elsewhere; no instance is asked.'),
    fault: fault.exactOptional().describe('Faults for tests.'),
    timeouts: timeouts.exactOptional().describe("In place of the service's own section."),
    retries: retries.exactOptional().describe("In place of the service's own section."),
  })
  .superRefine((one, context) => {
    if (one.to !== undefined && one.subset !== undefined)
      context.addIssue({ code: 'custom', path: ['subset'], message: 'expected `to` or `subset`, not both' });
    if (one.redirect === undefined) return;
    for (const key of UNUSED_BY_REDIRECT) {
      if (one[key] === undefined) continue;
      const stays = key === 'sticky' && one.percent < 100;
      if (!stays)
        context.addIssue({
          code: 'custom',
          path: [key],
          message: 'expected nothing of it beside `redirect`',
        });
    }
  })
  .transform(({ match, subset: only, to, ...rest }): Route => {
    const parts = only === undefined ? to : [{ subset: only, weight: 1 }];
    return { ...rest, matches: match ?? [], ...(parts === undefined ? {} : { to: parts }) };
  });

/** Tried in order; a request that none takes goes to all instances. */
export const routes = z
  .array(route)
  .min(1)
  .max(policyLimits.routes)
  .superRefine((list, context) => namesOnce(list, context)) satisfies z.ZodType<readonly Route[]>;
