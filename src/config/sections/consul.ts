import { z } from 'zod';
import { absolutePath, endpoint, zoneName } from '../scalars.ts';
import { duration } from '../units.ts';

const word = (what: string) =>
  z
    .string()
    .regex(/^[\x21-\x7e]{1,253}$/, `expected a ${what}`)
    .meta({ title: what });

/** The catalogue of Consul (docs/registries.md). */
export const consulRegistry = z.strictObject({
  type: z.literal('consul'),
  address: endpoint.default('127.0.0.1:8500').describe('HTTP address of the Consul agent.'),
  datacenter: word('datacentre').optional().describe('Datacentre that is asked; default that of the agent.'),
  zone: zoneName.optional().describe('Zone of instances that name none; default the zone of this host.'),
  tags: z.array(word('tag')).max(16).default([]).describe('Only instances that have all of these tags.'),
  tokenFile: absolutePath.optional().describe('File with the ACL token; mode 0600.'),
  tls: z
    .strictObject({
      ca: absolutePath.describe('Authorities that the agent is trusted by, PEM.'),
      cert: absolutePath.optional().describe('Certificate that is presented, PEM.'),
      key: absolutePath.optional().describe('Its key, PEM; mode 0600.'),
      serverName: word('name').optional().describe('Name in the certificate; default the address.'),
    })
    .optional()
    .describe('HTTPS to the agent; default plain HTTP.'),
  stale: z.boolean().default(true).describe('Any server may answer, not the leader alone.'),
  resyncInterval: duration('30s', 1000).describe('How often everything is compared, changed or not.'),
  timeout: duration('5s', 10).describe('Bound on connecting and on one answer.'),
});
