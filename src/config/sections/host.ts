import { z } from 'zod';
import { endpoint, nodeName, path, serviceName, zoneName } from '../scalars.ts';
import { duration, size } from '../units.ts';

/** Who this host is. */
export const node = z
  .strictObject({
    name: nodeName
      .optional()
      .describe(
        'Name of this host in the mesh; by default its host name. Must be the name in its certificate.',
      ),
    zone: zoneName.default('default').describe('The data centre (failure domain) this host stands in.'),
    callAs: serviceName
      .optional()
      .describe('Service that this host calls as; its certificate must allow it.'),
  })
  .prefault({})
  .describe('Who this host is.');

/** The processes of the agent. */
export const daemon = z
  .strictObject({
    user: z
      .string()
      .default('mesh-node')
      .describe('User that the daemon runs as; its own traffic is never intercepted.'),
    workers: z
      .union([z.literal('auto'), z.int().min(1).max(16)])
      .default('auto')
      .describe('Data-plane processes; auto: one up to 4 cores, then one for each 4, at most 4.'),
    stateDirectory: path('/var/lib/mesh-node').describe('What survives a restart.'),
    runtimeDirectory: path('/run/mesh-node').describe('Socket and other things that do not.'),
    drainTimeout: duration('30s', 0).describe('How long live connections may go on after SIGTERM.'),
    upgradeDrainTimeout: duration('1h', 0).describe(
      'How long live connections may go on in the old workers after `mesh-node upgrade`.',
    ),
    orphanTimeout: duration('10s').describe(
      'How long workers whose supervisor died serve on and wait for the next one.',
    ),
    heartbeatInterval: duration('250ms').describe('How often each worker is asked for a sign of life.'),
    suspendTimeout: duration('1s').describe(
      'When no worker has given a sign of life for this long, new connections go direct.',
    ),
    hangTimeout: duration('2s').describe('A worker silent for this long is killed and replaced.'),
  })
  .prefault({})
  .describe('Processes.');

/** What the agent says about itself. */
export const telemetry = z
  .strictObject({
    logLevel: z
      .enum(['trace', 'debug', 'info', 'warn', 'error'])
      .default('info')
      .describe('Least level that is logged.'),
    accessLog: z
      .union([
        z.literal('stdout'),
        z.literal('off'),
        z.string().regex(/^\//, 'expected stdout, off or an absolute path').meta({ title: 'absolute path' }),
      ])
      .default('stdout')
      .describe('Where one JSON line for each connection, and for each request of HTTP, goes.'),
    accessLogRequests: z
      .enum(['all', 'failed', 'off'])
      .default('all')
      .describe(
        'Which requests have a line; failed: those that did not end in order, or with a status of 500 or more.',
      ),
    accessLogBuffer: size('4MiB').describe(
      'Most bytes waiting to be written; lines beyond it are dropped and counted.',
    ),
    metricsListen: z
      .union([z.literal('off'), endpoint])
      .default('127.0.0.1:15090')
      .describe('Address of the Prometheus endpoint (GET /metrics, /ready).'),
    flushInterval: duration('1s').describe('How often workers hand their counts to the supervisor.'),
  })
  .prefault({})
  .describe('Log, metrics, access log.');
