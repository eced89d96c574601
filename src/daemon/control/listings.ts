import { z } from 'zod';
import { healthStates } from '../../balance/health.ts';
import { connectionDirections, connectionPaths } from '../../model/connection.ts';
import type { WorkerList, WorkerListing } from './messages.ts';

/*
 * Lists that workers answer with, as the supervisor believes them. Fields beyond these are left out.
 */

/** Items of one list: as many as the admin API asks for at most. */
export const MAX_ITEMS = 10_000;
/** Texts for people and addresses. */
const MAX_TEXT = 512;
/** Attempts of one connection or request that are told: more than there are. */
const MAX_FAILURES = 64;

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const measure = z.number().min(0);
const text = z.string().max(MAX_TEXT);
const path = z.enum(connectionPaths);
const caller = z.object({
  unit: text.exactOptional(),
  container: text.exactOptional(),
  user: text.exactOptional(),
});

const connection = {
  id: text,
  startedAt: measure,
  callerNode: text.optional(),
  callerService: text.optional(),
  callerAddress: text,
  callerProgram: text.optional(),
  caller: caller.optional(),
  service: text.optional(),
  instance: text.optional(),
  path,
};

const ended = {
  ...connection,
  durationMs: measure,
  zone: text.optional(),
  attempts: count,
  failures: z
    .array(z.object({ instance: text, path, reason: text, detail: text.optional() }))
    .max(MAX_FAILURES)
    .optional(),
  reason: text,
  detail: text.optional(),
};

const items = {
  connections: z.object({
    ...connection,
    direction: z.enum(connectionDirections),
    destination: text,
    bytesSent: measure,
    bytesReceived: measure,
  }),
  tunnels: z.object({
    peer: text,
    direction: z.enum(['dialled', 'accepted']),
    state: text,
    address: text,
    streams: count,
    roundTripMs: measure.optional(),
    since: measure,
  }),
  ended: z.discriminatedUnion('kind', [
    z.object({
      ...ended,
      kind: z.literal('connection'),
      direction: z.enum(connectionDirections),
      destination: text,
      bytesSent: measure,
      bytesReceived: measure,
      access: text.optional(),
    }),
    z.object({
      ...ended,
      kind: z.literal('request'),
      method: text.optional(),
      authority: text.optional(),
      target: text.optional(),
      status: count,
      requestBytes: measure,
      responseBytes: measure,
      reused: z.boolean(),
      traceId: text.optional(),
      route: text.optional(),
    }),
  ]),
  instances: z.object({
    service: text,
    id: text,
    state: z.enum(healthStates),
    reason: text.optional(),
    failures: count,
    active: count,
    until: z.number().optional(),
    latencyMs: measure.optional(),
    share: measure,
  }),
} satisfies Readonly<Record<WorkerList, z.ZodType>>;

/** One item of a list, as it is believed. */
export type ListItem<L extends WorkerList> = z.output<(typeof items)[L]>;

/** The answer to a question for this list, of at most so many items; undefined when it is none. */
export function parseListing(
  list: WorkerList,
  listing: WorkerListing,
  limit: number,
): WorkerListing | undefined {
  const parsed = z.array(items[list]).max(limit).safeParse(listing.items);
  return parsed.success ? { items: parsed.data, total: listing.total } : undefined;
}
