import { z } from 'zod';
import type { Access, AccessRule, RateLimit } from '../../model/policy.ts';
import { policyLimits } from '../limits.ts';
import { exactlyOne, namesOnce, oneOrMany, withShortForm } from './forms.ts';
import { callers, methods, pathMatch, requestMatches } from './match.ts';
import { headerName, itemName } from './scalars.ts';

const RATE = /^([1-9]\d{0,8})\/([1-9]\d{0,3})?(s|m|h)$/;
const RATE_UNITS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000 };

const rate = z
  .string()
  .regex(RATE, 'expected a rate such as 100/s, 10/m or 5/10s')
  .meta({ title: 'rate such as 100/s' })
  .transform((text) => {
    const [, count, times = '1', unit] = RATE.exec(text)!;
    return { count: Number(count), interval: Number(times) * RATE_UNITS[unit!]! };
  })
  .refine(({ interval }) => interval <= 24 * RATE_UNITS['h']!, 'expected a time of at most 24h');

const yes = z.literal(true);

const per = withShortForm(
  z
    .strictObject({
      service: yes.exactOptional().describe('All of them.'),
      caller: yes.exactOptional().describe('Those of one program, or of one address.'),
      header: headerName.exactOptional().describe('Those with the same value.'),
    })
    .refine(exactlyOne, 'expected exactly one of service, caller and header')
    .transform(({ service, header }): RateLimit['per'] => {
      if (header !== undefined) return { kind: 'header', name: header };
      return { kind: service === true ? 'service' : 'caller' };
    }),
  (value) => (value === 'service' || value === 'caller' ? { [value]: true } : value),
  { enum: ['service', 'caller'] },
  'service, caller, or a map with header',
);

const rateLimit = z
  .strictObject({
    name: itemName.describe('Shown in metrics, the access log and the answer.'),
    rate: rate.describe('So many in that time, evenly: `100/s`, `10/m`, `5/10s`.'),
    burst: z
      .int()
      .min(1)
      .max(1_000_000_000)
      .exactOptional()
      .describe('So many at once; by default as many as `rate` says.'),
    per: per.prefault('service').describe('Whose requests are counted together.'),
    match: requestMatches.exactOptional().describe('Only these requests; absent: all.'),
  })
  .transform(({ rate: { count, interval }, burst, match, ...rest }): RateLimit => {
    return { ...rest, count, interval, burst: burst ?? count, matches: match ?? [] };
  });

/** Each of them has to let a request, or the connection of an opaque service, through. */
export const rateLimits = z
  .array(rateLimit)
  .min(1)
  .max(policyLimits.rateLimits)
  .superRefine((list, context) => namesOnce(list, context)) satisfies z.ZodType<readonly RateLimit[]>;

const rule = z
  .strictObject({
    name: itemName.exactOptional().describe('Shown when it decides; by default rule-1, rule-2 and so on.'),
    allow: callers.exactOptional().describe('Callers that are let through.'),
    deny: callers.exactOptional().describe('Callers that are refused.'),
    methods: methods.exactOptional().describe('Only these; of HTTP services.'),
    paths: oneOrMany(pathMatch, policyLimits.list, 'path')
      .exactOptional()
      .describe('Only these, without the query; of HTTP services.'),
    ports: oneOrMany(z.int().min(1).max(65_535), policyLimits.list, 'port')
      .exactOptional()
      .describe('Only these ports of the instance.'),
  })
  .refine(
    ({ allow, deny }) => (allow === undefined) !== (deny === undefined),
    'expected either allow or deny',
  );

const rules = z.array(rule).max(policyLimits.accessRules);

/** Who may call. */
export const access = z
  .strictObject({
    rules: rules.default([]).describe('The first that matches decides.'),
    otherwise: z
      .enum(['allow', 'deny'])
      .exactOptional()
      .describe('When no rule matches: deny. Has to be said when no rule allows anything.'),
    shadow: z.boolean().default(false).describe('What would be denied is written down and let through.'),
  })
  .superRefine((said, context) => {
    if (said.otherwise === undefined && said.rules.every(({ allow }) => allow === undefined))
      context.addIssue({
        code: 'custom',
        path: ['otherwise'],
        message: 'expected allow or deny: no rule allows anything, so everybody would be refused',
      });
    namesOnce(said.rules.map(nameOf), context, ['rules']);
  })
  .transform((said): Access => {
    return { rules: said.rules.map(accessRule), otherwise: said.otherwise ?? 'deny', shadow: said.shadow };
  });

function nameOf({ name }: z.output<typeof rule>, at: number): { readonly name: string } {
  return { name: name ?? `rule-${at + 1}` };
}

function accessRule(said: z.output<typeof rule>, at: number): AccessRule {
  const { allow, deny, name: _, ...where } = said;
  return {
    ...nameOf(said, at),
    action: deny === undefined ? 'allow' : 'deny',
    callers: (allow ?? deny)!,
    ...where,
  };
}
