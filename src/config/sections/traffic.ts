import { z } from 'zod';
import { balancePolicies } from '../../model/service.ts';
import { count, percent } from '../scalars.ts';
import { duration, size } from '../units.ts';

/** Which instance gets a connection. */
export const balance = z
  .strictObject({
    policy: z
      .enum(balancePolicies)
      .default('round-robin')
      .describe('For services that name no policy of their own.'),
    connectTimeout: duration('5s').describe('Bound on reaching one instance.'),
    agentPatience: duration('1s').describe(
      'How long another agent may be silent before its callers go another way, where there is one.',
    ),
    attempts: z
      .int()
      .min(1)
      .max(10)
      .default(3)
      .describe(
        'Attempts for one connection, as long as no byte reached anybody, and for one request that may be asked again.',
      ),
    replayBuffer: size('64KiB', 0).describe("Most of a caller's first bytes kept for another attempt."),
    ejectAfter: count(5).describe('Consecutive failures after which an instance is set aside.'),
    ejectBase: duration('5s').describe('First time out; doubles with each ejection in a row.'),
    ejectMax: duration('5m').describe('Longest time out.'),
    probeInterval: duration('1s').describe(
      'A service none of whose instances can be reached refuses at connect, and is probed this often.',
    ),
    maxEjectedPercent: z
      .int()
      .min(0)
      .max(100)
      .default(50)
      .describe('Share of a service that may be out at once.'),
  })
  .prefault({})
  .describe('How an instance is picked, and set aside when it fails.');

/** How much a worker takes on. */
export const limits = z
  .strictObject({
    connections: count(8000).describe('Intercepted connections of one worker; beyond it new ones are reset.'),
    callerPercent: percent(50).describe(
      'Share of `connections` that one caller (unit, container or user) may have.',
    ),
    acceptBatch: z
      .int()
      .min(1)
      .max(1024)
      .default(64)
      .describe('Connections accepted in one turn of the loop.'),
    keepaliveIdle: duration('30s').describe(
      'TCP keepalive on both legs; under the 60 s CLOSE_WAIT timeout of conntrack.',
    ),
    halfClosedIdle: duration('5m').describe('A half-closed connection without traffic is ended after this.'),
  })
  .prefault({})
  .describe('Bounds of the data plane.');
