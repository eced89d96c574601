import { z } from 'zod';
import { absolutePath, hostPort, serviceName } from '../scalars.ts';
import { duration } from '../units.ts';

const zookeeperPath = z
  .string()
  .regex(/^(?=.{1,1024}$)(\/|(\/(?!\.{1,2}(\/|$))[^/\p{Cc}]+)+)$/u, 'expected a path such as /discovery')
  .meta({ title: 'ZooKeeper path' });

const serverset = z.strictObject({
  name: serviceName.describe('Name of the service in the mesh.'),
  path: zookeeperPath.describe('Path whose members are its instances.'),
  endpoint: z
    .string()
    .min(1)
    .max(128)
    .optional()
    .describe('One of the additional endpoints of the members; default their service endpoint.'),
});

/** Serversets in ZooKeeper (docs/registries.md). */
export const zookeeperRegistry = z.strictObject({
  type: z.literal('zookeeper'),
  servers: z.array(hostPort).min(1).max(16).describe('The servers of the ensemble; one at a time is asked.'),
  path: zookeeperPath
    .default('/discovery')
    .describe('Every path below it that has members is a service. Not used with `services`.'),
  names: z
    .enum(['last', 'path'])
    .default('last')
    .describe(
      'What a path below is called: `/discovery/prod/web` is `web` (`last`), or `web.prod` (`path`), as DNS names are written.',
    ),
  services: z
    .array(serverset)
    .max(1000)
    .default([])
    .describe('Serversets that are followed instead of the tree, each with its name.'),
  auth: z
    .strictObject({
      scheme: z
        .string()
        .regex(/^[a-z0-9]{1,32}$/)
        .default('digest')
        .describe('Scheme of the credentials.'),
      file: absolutePath.describe('File with the credentials, `USER:PASSWORD` for `digest`; mode 0600.'),
    })
    .optional()
    .describe('Credentials; default none.'),
  tls: z
    .strictObject({
      ca: absolutePath.describe('Authorities that the servers are trusted by, PEM.'),
      cert: absolutePath.optional().describe('Certificate that is presented, PEM.'),
      key: absolutePath.optional().describe('Its key, PEM; mode 0600.'),
      serverName: z
        .string()
        .min(1)
        .max(253)
        .optional()
        .describe('Name in the certificates; default the host.'),
    })
    .refine((tls) => (tls.cert === undefined) === (tls.key === undefined), 'expected cert and key together')
    .optional()
    .describe('TLS to the servers; default plain TCP.'),
  sessionTimeout: duration('10s', 100).describe(
    'Session that is asked for; a server that says nothing for two thirds of it is left.',
  ),
  resyncInterval: duration('1m', 100).describe(
    'How often everything is compared, because watches stall silently.',
  ),
  timeout: duration('5s', 10).describe('Bound on connecting and on one answer.'),
});
