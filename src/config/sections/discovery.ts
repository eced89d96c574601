import { z } from 'zod';
import { absolutePath, count, endpoint, path } from '../scalars.ts';
import { duration } from '../units.ts';

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

/** One place that services come from. */
export const registry = z.discriminatedUnion('type', [fileRegistry, serfRegistry]);

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
