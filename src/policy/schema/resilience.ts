import { z } from 'zod';
import { duration, givenDuration, size } from '../../config/units.ts';
import {
  type ActiveProbe,
  type CircuitBreaker,
  type Outlier,
  type Retries,
  retryConditions,
  type Timeouts,
} from '../../model/policy.ts';
import { policyLimits } from '../limits.ts';
import { oneOrMany, orDefaults, somethingSaid, withShortForm } from './forms.ts';
import { headerMatches, methods } from './match.ts';
import { count, hostText, plainPath, wholeShare } from './scalars.ts';

/** RFC 9110, 9.2.2: asking twice does what asking once does. */
const IDEMPOTENT = ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'];
/** What a server that is overloaded, or a proxy before it, answers with. */
const PASSING_STATUSES = [502, 503, 504];
/** Most of a request's content that is kept for another attempt. */
const MOST_REPLAY = 16 * 1024 * 1024;

const status = z.int().min(100).max(599).meta({ title: 'status' });

const writtenRetries = z.strictObject({
  on: oneOrMany(z.enum(retryConditions), retryConditions.length, 'condition')
    .exactOptional()
    .describe(
      'What makes another attempt worth it: `connect-failure` (nothing was delivered), `reset` (lost before an answer began), `timeout` (of `perTryTimeout`), `status`, `header`. By default connect-failure and reset, and whatever else has a setting here.',
    ),
  statuses: oneOrMany(status, policyLimits.list, 'status')
    .exactOptional()
    .describe('Of answers, for `status`; 502, 503 and 504 by default.'),
  headers: headerMatches.exactOptional().describe('Of the answer, for `header`; one of them.'),
  attempts: z
    .int()
    .min(0)
    .max(10)
    .default(1)
    .describe('Further attempts after the first, each at another instance; 0: none.'),
  methods: methods
    .prefault(IDEMPOTENT)
    .describe(
      'Methods that may be asked again after they may have been heard; others only when nothing was delivered.',
    ),
  perTryTimeout: givenDuration().exactOptional().describe('Bound on one attempt, to the head of its answer.'),
  backoff: z
    .strictObject({
      base: duration('25ms').describe(
        'Longest pause before the second attempt; doubles. Each pause is random up to it.',
      ),
      max: duration('250ms').describe('Longest pause of all.'),
    })
    .prefault({})
    .describe('Pauses between attempts.'),
  budget: z
    .strictObject({
      percent: wholeShare(20).describe('Of the requests of the last ten seconds.'),
      perSecond: z.int().min(0).max(1_000_000).default(10).describe('And so many a second besides.'),
    })
    .prefault({})
    .describe('How many retries there may be in all, so that they do not make an overload worse.'),
  replayBuffer: size('64KiB', 0)
    .refine((bytes) => bytes <= MOST_REPLAY, 'expected at most 16MiB')
    .describe('Most content of a request that is kept for another attempt; a longer one is asked once.'),
});

/** Further attempts. */
export const retries = withShortForm(
  writtenRetries
    .superRefine(({ on, statuses, headers, perTryTimeout, backoff }, context) => {
      const wrong = (key: string, message: string) =>
        context.addIssue({ code: 'custom', path: [key], message });
      if (backoff.base > backoff.max)
        context.addIssue({
          code: 'custom',
          path: ['backoff', 'base'],
          message: 'expected at most backoff.max',
        });
      if (on === undefined) return;
      if (statuses !== undefined && !on.includes('status')) wrong('statuses', 'expected status among `on`');
      if (headers !== undefined && !on.includes('header')) wrong('headers', 'expected header among `on`');
      if (perTryTimeout === undefined && on.includes('timeout'))
        wrong('on', 'expected perTryTimeout beside timeout');
      if (headers === undefined && on.includes('header')) wrong('on', 'expected headers beside header');
    })
    .transform(({ on, statuses, headers, ...rest }): Retries => {
      const conditions = on ?? [
        'connect-failure',
        'reset',
        ...(rest.perTryTimeout === undefined ? [] : ['timeout' as const]),
        ...(statuses === undefined ? [] : ['status' as const]),
        ...(headers === undefined ? [] : ['header' as const]),
      ];
      const asked = conditions.includes('status') ? (statuses ?? PASSING_STATUSES) : [];
      return { ...rest, on: [...new Set(conditions)], statuses: asked, headers: headers ?? [] };
    }),
  (value) => (typeof value === 'number' ? { attempts: value } : (value ?? {})),
  { anyOf: [{ type: 'integer', minimum: 0, maximum: 10 }, { type: 'null' }] },
  'number of attempts, or map',
);

/** Bounds on time. */
export const timeouts = z
  .strictObject({
    connect: givenDuration(0)
      .exactOptional()
      .describe('On reaching one instance, within `balance.connectTimeout`.'),
    request: givenDuration(0)
      .exactOptional()
      .describe('From the head of a request to the end of its answer, all attempts together; else none.'),
    idle: givenDuration(0)
      .exactOptional()
      .describe(
        "A caller's connection without a request (else 1h), or an opaque one without a byte (else none).",
      ),
    stream: givenDuration(0)
      .exactOptional()
      .describe(
        'Within a request, or an upgraded connection: no byte either way; else 30m within a request, and none once it is upgraded.',
      ),
  })
  .refine(
    somethingSaid,
    'expected at least one of connect, request, idle and stream',
  ) satisfies z.ZodType<Timeouts>;

const bound = (fallback: number, least = 1) =>
  z.union([z.literal('off'), z.int().min(least).max(1_000_000)]).default(fallback);

/** How much at once. */
export const circuitBreaker = orDefaults(
  z
    .strictObject({
      connections: bound(1024).describe('To its instances.'),
      pending: bound(1024).describe('Requests, or connections, that wait for an instance to be reached.'),
      requests: bound(1024).describe('Under way.'),
      retries: bound(3, 0).describe('At once.'),
    })
    .transform(
      (bounds): CircuitBreaker =>
        Object.fromEntries(Object.entries(bounds).filter(([, most]) => most !== 'off')),
    ),
);

const compared = { minimumInstances: count(5), minimumRequests: count(100) };

/** Which instances are set aside. */
export const outlier = orDefaults(
  z
    .strictObject({
      consecutiveErrors: count(5).describe('Failures in a row: not reached, reset, 5xx, or out of time.'),
      interval: duration('10s', 100).describe('How often rates and delays are compared.'),
      successRate: orDefaults(
        z.strictObject({
          minimumInstances: compared.minimumInstances.describe(
            'With enough requests; with fewer nothing is compared.',
          ),
          minimumRequests: compared.minimumRequests.describe('Of one instance within `interval`.'),
          factor: z.number().min(0.1).max(100).default(1.9).describe('Standard deviations.'),
        }),
      )
        .exactOptional()
        .describe(
          'Those whose share of success is below the mean minus `factor` standard deviations; absent: not compared.',
        ),
      latency: orDefaults(
        z.strictObject({
          minimumInstances: count(3).describe('With enough requests; with fewer nothing is compared.'),
          minimumRequests: compared.minimumRequests.describe('Of one instance within `interval`.'),
          factor: z
            .number()
            .min(1)
            .max(1000)
            .default(3)
            .describe("Times the median of the service's instances."),
          atLeast: duration('50ms').describe('A mean delay below this is never too long.'),
        }),
      )
        .exactOptional()
        .describe('Those whose mean delay is too long; absent: not compared.'),
      baseEjection: duration('30s', 100).describe(
        'First time out; with each further one in a row it is as much longer.',
      ),
      maxEjection: duration('5m', 100).describe('Longest time out.'),
      maxEjectedPercent: wholeShare(50).describe(
        'Of the instances that may be out at once; one always may, unless this is 0.',
      ),
      panicThreshold: wholeShare(50).describe(
        'When fewer than this share of the instances is usable, all are used.',
      ),
    })
    .superRefine(({ baseEjection, maxEjection }, context) => {
      if (baseEjection <= maxEjection) return;
      context.addIssue({ code: 'custom', path: ['baseEjection'], message: 'expected at most maxEjection' });
    }) satisfies z.ZodType<Outlier>,
);

const RANGE = /^([1-5]\d\d)-([1-5]\d\d)$/;

const statusRange = withShortForm(
  z
    .string()
    .regex(RANGE, 'expected a status such as 204, or a range such as 200-299')
    .transform((written) => {
      const [, from, to] = RANGE.exec(written)!;
      return { from: Number(from), to: Number(to) };
    })
    .refine(({ from, to }) => from <= to, 'expected a range that begins with its lower status'),
  (value) => (typeof value === 'number' ? `${value}-${value}` : value),
  { type: 'integer', minimum: 100, maximum: 599 },
  'status, or range such as 200-299',
);

/** What is asked of instances by the agent itself. */
export const probe = orDefaults(
  z
    .strictObject({
      http: withShortForm(
        z.strictObject({
          path: plainPath.default('/').describe('Asked for by GET.'),
          host: hostText.exactOptional().describe('Sent as Host; else the name of the service.'),
          statuses: oneOrMany(statusRange, policyLimits.list, 'status or range')
            .prefault(['200-299'])
            .describe('That mean success.'),
        }),
        (value) => (typeof value === 'string' ? { path: value } : (value ?? {})),
        { anyOf: [{ type: 'string' }, { type: 'null' }] },
        'path, or map',
      )
        .exactOptional()
        .describe('Absent: a connection is enough.'),
      interval: duration('10s', 100).describe('Between two questions to one instance.'),
      timeout: duration('1s').describe('Bound on one answer.'),
      rise: count(2, 1000).describe('Successes in a row that bring an instance back.'),
      fall: count(3, 1000).describe('Failures in a row that set it aside.'),
    })
    .superRefine(({ interval, timeout }, context) => {
      if (timeout <= interval) return;
      context.addIssue({ code: 'custom', path: ['timeout'], message: 'expected at most interval' });
    }) satisfies z.ZodType<ActiveProbe>,
);
