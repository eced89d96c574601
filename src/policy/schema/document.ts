import { z } from 'zod';
import type { JsonSchema } from '../../config/keys.ts';
import { serviceName } from '../../config/scalars.ts';
import type { ServicePolicy } from '../../model/policy.ts';
import { policyLimits } from '../limits.ts';
import { access, rateLimits } from './access.ts';
import { balance } from './balance.ts';
import { addShortForm } from './forms.ts';
import { circuitBreaker, outlier, probe, retries, timeouts } from './resilience.ts';
import { routes } from './routes.ts';

/*
 * The one schema of a document of /etc/mesh-node/policies.d: it gives validation, defaults, docs/policies.md and
 * docs/policies.schema.json. What comes out of it is the model.
 */

/** Everything that can be said of a service, in the order of the documentation. */
export const sections = {
  routes: routes.describe(
    'Of HTTP services: tried in order, the first that takes a request decides. One that none takes goes to all instances.',
  ),
  retries: retries.describe('Further attempts for requests that failed.'),
  timeouts: timeouts.describe('Bounds on time; `0s` is none.'),
  circuitBreaker: circuitBreaker.describe(
    "Bounds on what this host's callers have under way with a service at once, each held by every worker for its share; `off` is none.",
  ),
  outlier: outlier.describe('Which instances are set aside for their failures, and for how long.'),
  probe: probe.describe('The agent asks the instances by itself, and uses those that answer.'),
  balance: balance.describe('Which instance gets a request or a connection.'),
  rateLimits: rateLimits.describe(
    'How often a service may be called from this host, whatever the number of workers.',
  ),
  access: access.describe(
    'Who may call, by what the tunnel tells of the caller. Decided at the agent of the called instance.',
  ),
  hops: z
    .enum(['two', 'three'])
    .describe('`two`: callers connect to permissive instances directly, past the agents.'),
} satisfies { readonly [S in keyof ServicePolicy]-?: z.ZodType<NonNullable<ServicePolicy[S]>> };

export type PolicySection = keyof typeof sections;
export const sectionNames = Object.keys(sections) as readonly PolicySection[];

const optional = Object.fromEntries(
  Object.entries(sections).map(([name, schema]) => [name, (schema as z.ZodType).exactOptional()]),
) as { [S in PolicySection]: z.ZodExactOptional<(typeof sections)[S]> };

const named = z.union([z.literal('*'), serviceName]).meta({ title: 'service name or *' });

/** One document. */
export const documentSchema = z
  .strictObject({
    service: named
      .exactOptional()
      .describe('Of which service; `*`: of all that do not have the section of their own.'),
    services: z
      .array(serviceName)
      .min(1)
      .max(policyLimits.servicesPerDocument)
      .exactOptional()
      .describe('The same, of several services.'),
    ...optional,
  })
  .superRefine(({ service, services, ...said }, context) => {
    if ((service === undefined) === (services === undefined))
      context.addIssue({ code: 'custom', path: [], message: 'expected either service or services' });
    const seen = new Set<string>();
    for (const [at, name] of (services ?? []).entries()) {
      if (seen.has(name))
        context.addIssue({ code: 'custom', path: ['services', at], message: 'expected each service once' });
      seen.add(name);
    }
    for (const [section, value] of Object.entries(said)) {
      if (regexesIn(value) <= policyLimits.regexes) continue;
      const message = `expected at most ${policyLimits.regexes} regular expressions`;
      context.addIssue({ code: 'custom', path: [section], message });
    }
    if (Object.keys(said).length === 0)
      context.addIssue({ code: 'custom', path: [], message: `expected one of ${sectionNames.join(', ')}` });
  })
  .transform(({ service, services, ...policy }): PolicyDocument => {
    return { services: services ?? [service!], policy };
  });

function regexesIn(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  if ('kind' in value && value.kind === 'regex') return 1;
  return Object.values(value).reduce<number>((sum, one) => sum + regexesIn(one), 0);
}

/** What one document says, complete. */
export interface PolicyDocument {
  /** Names of services; `*` alone: the rest of them. */
  readonly services: readonly string[];
  readonly policy: ServicePolicy;
}

/** JSON Schema of a document as an operator writes it; `long`: without short forms, as problems are explained by it. */
export const longSchema = z.toJSONSchema(documentSchema, { io: 'input' }) as JsonSchema;

/** The same, with short forms. */
export function editorSchema(): JsonSchema {
  return z.toJSONSchema(documentSchema, { io: 'input', override: addShortForm }) as JsonSchema;
}
