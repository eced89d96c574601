import { z } from 'zod';
import { cache, registry } from './sections/discovery.ts';
import { daemon, node, telemetry } from './sections/host.ts';
import { caller, capture, guard } from './sections/interception.ts';
import { names } from './sections/naming.ts';
import { policies } from './sections/policies.ts';
import { detection, redis } from './sections/protocols.ts';
import { proxy } from './sections/proxy.ts';
import { balance, limits } from './sections/traffic.ts';
import { identity, tunnel, zone, zoneAgent } from './sections/tunnels.ts';

/*
 * The one schema of /etc/mesh-node/mesh-node.yaml: it gives the types, the defaults (in its sections and nowhere else),
 * the validation, docs/configuration.md and docs/configuration.schema.json.
 */

/** Schema of the whole file. Unknown keys are errors everywhere. */
export const configSchema = z.strictObject({
  node,
  capture,
  names,
  caller,
  proxy,
  guard,
  tunnel,
  identity,
  registries: z
    .array(registry)
    .max(16)
    .prefault([{ type: 'file' }])
    .describe('Where services come from; earlier ones win where two speak of the same service.'),
  cache,
  policies,
  balance,
  detection,
  redis,
  zones: z.array(zone).max(256).default([]).describe('Other zones and how they are reached.'),
  zoneAgent,
  limits,
  daemon,
  telemetry,
});

type DeepReadonly<T> = T extends (infer U)[]
  ? readonly DeepReadonly<U>[]
  : T extends object
    ? { readonly [K in keyof T]: DeepReadonly<T[K]> }
    : T;

/** The configuration as the program uses it: complete, checked, frozen; durations in ms, sizes in bytes. */
export type Config = DeepReadonly<z.output<typeof configSchema>>;
/** The configuration as it is written in the file. */
export type ConfigInput = z.input<typeof configSchema>;
export type RegistryConfig = Config['registries'][number];
