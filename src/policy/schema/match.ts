import { z } from 'zod';
import type { NamedMatch, RequestMatch, StickyKey, TextMatch } from '../../model/policy.ts';
import { policyLimits } from '../limits.ts';
import { callerPatternProblem } from '../match/caller.ts';
import { regexProblem } from '../match/text.ts';
import { exactlyOne, oneOrMany, somethingSaid, withShortForm } from './forms.ts';
import { comparedText, cookieName, headerName, method, writtenHeaderName } from './scalars.ts';

const regex = z
  .string()
  .min(1)
  .superRefine((text, context) => {
    const problem = regexProblem(text);
    if (problem === undefined) return;
    context.addIssue({
      code: 'custom',
      message: `expected a regular expression of RE2; this one ${problem}`,
    });
  })
  .meta({ title: 'regular expression' });

const asExact = (value: unknown): unknown => (typeof value === 'string' ? { exact: value } : value);
const TEXT = { type: 'string' } as const;
const yes = z.literal(true);

const comparison = z
  .strictObject({
    exact: comparedText.exactOptional().describe('The whole text.'),
    prefix: comparedText.exactOptional().describe('Its beginning.'),
    regex: regex
      .exactOptional()
      .describe('A part of it; `^` and `$` anchor. RE2: linear time, no look-around.'),
    present: yes.exactOptional().describe('There is one, whatever it says.'),
    absent: yes.exactOptional().describe('There is none.'),
  })
  .refine(exactlyOne, 'expected exactly one of exact, prefix, regex, present and absent')
  .transform(({ exact, prefix, regex: expression, present }): TextMatch => {
    if (exact !== undefined) return { kind: 'exact', value: exact };
    if (prefix !== undefined) return { kind: 'prefix', value: prefix };
    if (expression !== undefined) return { kind: 'regex', value: expression };
    return present === true ? { kind: 'present' } : { kind: 'absent' };
  });

const text = withShortForm(
  comparison,
  asExact,
  TEXT,
  'text, or a map with exact, prefix, regex, present or absent',
);

/** A wildcard is none here: whoever writes one would find that nothing matches. */
const PATH = /^\/[^?#*\s]*$/u;
const pathText = comparedText.regex(PATH, 'expected a path that begins with /, without query and without *');

/** What a path is compared with; a plain text is the whole path. */
export const pathMatch = withShortForm(
  z
    .strictObject({
      exact: pathText.exactOptional().describe('The whole path, without the query.'),
      prefix: pathText.exactOptional().describe('`/api` is met by `/api` and `/api/x`, not by `/apis`.'),
      regex: regex.exactOptional().describe('A part of the path; `^` and `$` anchor.'),
    })
    .refine(exactlyOne, 'expected exactly one of exact, prefix and regex')
    .transform(({ exact, prefix, regex: expression }): TextMatch => {
      if (exact !== undefined) return { kind: 'exact', value: exact };
      if (prefix !== undefined) return { kind: 'prefix', value: prefix };
      return { kind: 'regex', value: expression! };
    }),
  asExact,
  TEXT,
  'path, or a map with exact, prefix or regex',
);

/** `same`: in one form what is the same name, of which there may be one only. */
function named<K extends z.ZodType<string, string>>(
  name: K,
  what: string,
  same = (key: string): string => key,
) {
  return z
    .record(name, text)
    .refine(
      (all) => Object.keys(all).length >= 1 && Object.keys(all).length <= policyLimits.named,
      `expected 1 to ${policyLimits.named} names`,
    )
    .superRefine((all, context) => {
      const keys = Object.keys(all);
      const twice = keys.find((key, at) => keys.findIndex((other) => same(other) === same(key)) < at);
      if (twice !== undefined)
        context.addIssue({ code: 'custom', path: [twice], message: 'expected each name once' });
    })
    .transform((all) => Object.entries(all).map(([key, match]): NamedMatch => ({ name: same(key), match })))
    .meta({ title: `map of ${what} to text or comparison` });
}

/** Headers by name, which is without case. */
export const headerMatches = named(writtenHeaderName, 'header names', (name) => name.toLowerCase());

/** Who calls; a plain text, or a list of which one has to hold. */
export const callers = oneOrMany(
  z
    .string()
    .max(policyLimits.text, `expected at most ${policyLimits.text} characters`)
    .superRefine((pattern, context) => {
      const problem = callerPatternProblem(pattern);
      if (problem === undefined) return;
      const message = `expected service:NAME, unit:NAME, user:NAME, container:ID, node:NAME or *; this ${problem}`;
      context.addIssue({ code: 'custom', message });
    })
    .meta({ title: 'caller' }),
  policyLimits.list,
  'caller',
);

export const methods = oneOrMany(method, policyLimits.list, 'method');

const requestMatch = z
  .strictObject({
    methods: methods.exactOptional().describe('One of these.'),
    path: pathMatch.exactOptional().describe('Without the query.'),
    headers: headerMatches.exactOptional().describe('Each of these.'),
    cookies: named(cookieName, 'cookie names').exactOptional().describe('Each of these.'),
    query: named(comparedText.min(1), 'query parameters').exactOptional().describe('Each of these, decoded.'),
    callers: callers.exactOptional().describe('One of these.'),
  })
  .refine(somethingSaid, 'expected at least one condition') satisfies z.ZodType<RequestMatch>;

/** What a request has to look like; of a list one has to hold. */
export const requestMatches = oneOrMany(requestMatch, policyLimits.matches, 'match');

/** Which text of a request decides again and again. */
export const sticky = withShortForm(
  z
    .strictObject({
      header: headerName.exactOptional().describe('Its value.'),
      cookie: cookieName.exactOptional().describe('Its value.'),
      caller: yes.exactOptional().describe('The program that calls, else its address.'),
    })
    .refine(exactlyOne, 'expected exactly one of header, cookie and caller')
    .transform(({ header, cookie }): StickyKey => {
      if (header !== undefined) return { kind: 'header', name: header };
      return cookie === undefined ? { kind: 'caller' } : { kind: 'cookie', name: cookie };
    }),
  (value) => (value === 'caller' ? { caller: true } : value),
  { const: 'caller' },
  'caller, or a map with header or cookie',
);
