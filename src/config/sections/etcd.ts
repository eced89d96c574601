import { z } from 'zod';
import { absolutePath, hostPort } from '../scalars.ts';
import { duration } from '../units.ts';

/** Keys and values in etcd (docs/registries.md). */
export const etcdRegistry = z
  .strictObject({
    type: z.literal('etcd'),
    endpoints: z
      .array(hostPort)
      .min(1)
      .max(16)
      .describe('Client addresses of the cluster; one at a time is asked, another one when it fails.'),
    prefix: z
      .string()
      .regex(/^(?=.{1,1024}$)(\/[^/\s]+)+$/, 'expected a prefix such as /mesh-node')
      .default('/mesh-node')
      .describe('What all keys begin with, before `/services/` and `/nodes/`.'),
    user: z.string().min(1).max(256).optional().describe('User of etcd; default none.'),
    passwordFile: absolutePath.optional().describe('File with the password of the user; mode 0600.'),
    tls: z
      .strictObject({
        ca: absolutePath.describe('Authorities that the servers are trusted by, PEM.'),
        cert: absolutePath.optional().describe('Certificate that is presented, PEM.'),
        key: absolutePath.optional().describe('Its key, PEM; mode 0600.'),
      })
      .refine((tls) => (tls.cert === undefined) === (tls.key === undefined), 'expected cert and key together')
      .optional()
      .describe('TLS to the servers; default plain TCP.'),
    resyncInterval: duration('30s', 100).describe(
      'How often everything is compared, because watches stall silently.',
    ),
    timeout: duration('5s', 10).describe('Bound on one answer.'),
  })
  .refine(
    (etcd) => (etcd.user === undefined) === (etcd.passwordFile === undefined),
    'expected user and passwordFile together',
  );
