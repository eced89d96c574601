import { z } from 'zod';
import { protocols, serviceModes } from '../../model/service.ts';
import { absolutePath, count, endpoint, path, serviceName, zoneName } from '../scalars.ts';
import { duration } from '../units.ts';
import { consulRegistry } from './consul.ts';
import { etcdRegistry } from './etcd.ts';
import { zookeeperRegistry } from './zookeeper.ts';

const fileRegistry = z.strictObject({
  type: z.literal('file'),
  directory: path('/etc/mesh-node/catalogue.d').describe('Directory of YAML files, watched.'),
});

const serfRegistry = z.strictObject({
  type: z.literal('serf'),
  address: endpoint.default('127.0.0.1:7373').describe('RPC address of the local Serf agent.'),
  authKeyFile: absolutePath.optional().describe('File with the RPC auth key; mode 0600.'),
  resyncInterval: duration('30s').describe(
    'How often the full member list is compared, because event streams stall silently.',
  ),
  timeout: duration('5s').describe('Bound on one RPC answer.'),
});

const srvName = z
  .string()
  .regex(/^(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?$/, 'expected a DNS name')
  .meta({ title: 'DNS name' });

const dnsService = z.strictObject({
  name: serviceName.describe('Name of the service in the mesh.'),
  srv: srvName.describe('Name of its SRV records, such as `_http._tcp.orders.example`.'),
  protocol: z.enum(protocols).optional().describe('What it speaks; default `auto`.'),
  mode: z.enum(serviceModes).default('permissive').describe('`strict` fails closed.'),
  zone: zoneName.optional().describe('Zone of its instances; default the zone of this host.'),
});

const dnsRegistry = z.strictObject({
  type: z.literal('dns'),
  services: z.array(dnsService).min(1).max(1000).describe('What is looked up.'),
  servers: z
    .array(endpoint)
    .max(8)
    .default([])
    .describe('Name servers, tried in order; none: those of /etc/resolv.conf.'),
  minInterval: duration('5s').describe(
    'Least time between two looks; doubles while something cannot be asked.',
  ),
  maxInterval: duration('30s').describe('Most time between two looks, whatever the records say.'),
  timeout: duration('2s').describe('Bound on one question.'),
});

/** One place that services come from. */
export const registry = z.discriminatedUnion('type', [
  fileRegistry,
  serfRegistry,
  dnsRegistry,
  consulRegistry,
  zookeeperRegistry,
  etcdRegistry,
]);

/** What is kept of their answers. */
export const cache = z
  .strictObject({
    file: path('/var/lib/mesh-node/catalogue.cache').describe(
      'Where the catalogue is kept for a cold boot without registry.',
    ),
    writeDelay: duration('500ms', 0).describe('Changes within this time are written together.'),
    memoryEntries: count(10_000).describe('Answers to on-demand questions kept in memory.'),
    freshFor: duration('30s').describe('An answer this young is used as it is.'),
    staleFor: duration('10m').describe('An older one is used while a new one is fetched.'),
    negativeFor: duration('5s', 0).describe('How long "nobody knows" is remembered.'),
    lookupTimeout: duration('500ms').describe('Bound on one on-demand question to the registries.'),
  })
  .prefault({})
  .describe('Memory and file tiers in front of the registries.');
