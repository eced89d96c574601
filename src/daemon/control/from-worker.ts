import { z } from 'zod';
import { MOST_ASKED } from '../../caller/source-ports.ts';
import { type Ip, parseIp } from '../../model/address.ts';
import { type InstanceId, parseInstanceId, parseServiceName, type ServiceName } from '../../model/service.ts';
import type { MetricsDelta } from '../../telemetry/counters.ts';
import { eventKinds, MAX_EVENT_TEXT } from '../events.ts';
import { areVitals, type Vitals } from '../guard/vitals.ts';
import { parseHello } from '../succession/hello.ts';
import type { MessageReader } from './channel.ts';
import { MAX_ITEMS } from './listings.ts';
import type { ToSupervisor } from './messages.ts';

/*
 * What a supervisor believes of what a worker says. Workers parse what strangers send, and one that was taken over must
 * not be able to end the supervisor or to fill its memory. Fields beyond these are left out: a later version may have them.
 */

/** Values in one message: 10,000 connections, or 20,000 series, with all their fields. */
const MAX_VALUES = 1_000_000;
/** Claims of one worker: more than it ever holds for dead (balance/outages.ts). */
const MAX_DOWN = 1_024;
/** Series of one delta. */
const MAX_SAMPLES = 100_000;
const MAX_LABELS = 8;
/** The longest label is a caller's text. */
const MAX_LABEL = 512;
/** A histogram has its sum and a number for each bucket. */
const MAX_NUMBERS = 64;

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const serviceName = z.custom<ServiceName>(
  (value) => typeof value === 'string' && parseServiceName(value) !== undefined,
);
const instanceId = z.custom<InstanceId>(
  (value) => typeof value === 'string' && parseInstanceId(value) !== undefined,
);
const ip = z.custom<Ip>((value) => typeof value === 'string' && parseIp(value) === value);
const endpoint = z.object({ ip, port: z.number().int().min(0).max(65_535) });
const claim = z.union([
  z.object({ service: serviceName, instance: instanceId }),
  z.strictObject({ service: serviceName }),
]);

const messages = {
  // Its form is that of another version, perhaps: it has a reader of its own.
  hello: z.custom<Extract<ToSupervisor, { t: 'hello' }>>((message) => parseHello(message) !== undefined),
  ready: z.object({ t: z.literal('ready') }),
  ack: z.object({ t: z.literal('ack'), version: count }),
  policies: z.object({ t: z.literal('policies'), version: count }),
  pong: z.object({ t: z.literal('pong'), id: count }),
  metrics: z.object({ t: z.literal('metrics'), delta: z.custom<MetricsDelta>(isMetricsDelta) }),
  vitals: z.object({ t: z.literal('vitals'), vitals: z.custom<Vitals>(areVitals) }),
  outages: z.object({ t: z.literal('outages'), down: z.array(claim).max(MAX_DOWN) }),
  event: z.object({
    t: z.literal('event'),
    event: z.object({
      kind: z.enum(eventKinds),
      service: serviceName.exactOptional(),
      instance: instanceId.exactOptional(),
      text: z.string().max(MAX_EVENT_TEXT),
    }),
  }),
  list: z.object({
    t: z.literal('list'),
    id: count,
    listing: z.object({ items: z.array(z.unknown()).max(MAX_ITEMS), total: count }),
  }),
  'source-ports': z.object({
    t: z.literal('source-ports'),
    id: count,
    connections: z.array(z.object({ listener: endpoint, client: endpoint })).max(MOST_ASKED),
  }),
  drained: z.object({ t: z.literal('drained'), cut: count }),
} satisfies { readonly [T in ToSupervisor['t']]: z.ZodType<Extract<ToSupervisor, { t: T }>> };

const kinds = new Map<unknown, z.ZodType<ToSupervisor>>(Object.entries(messages));

/** Reads what a worker says. */
export const fromWorker: MessageReader<ToSupervisor> = {
  maxValues: MAX_VALUES,
  read(value) {
    if (typeof value !== 'object' || value === null || !('t' in value)) return undefined;
    const kind = kinds.get(value.t);
    if (kind === undefined) return typeof value.t === 'string' ? 'unknown' : undefined;
    return kind.safeParse(value).data;
  },
};

/** By hand: some thousand series, once a second from each worker. */
function isMetricsDelta(value: unknown): boolean {
  return Array.isArray(value) && value.length <= MAX_SAMPLES && value.every(isMetricSample);
}

function isMetricSample(value: unknown): boolean {
  if (!Array.isArray(value) || value.length !== 3) return false;
  const [name, labels, numbers] = value as readonly unknown[];
  return (
    typeof name === 'string' &&
    name.length <= MAX_LABEL &&
    isListOf(labels, MAX_LABELS, (label) => typeof label === 'string' && label.length <= MAX_LABEL) &&
    isListOf(numbers, MAX_NUMBERS, Number.isFinite)
  );
}

function isListOf(value: unknown, most: number, is: (item: unknown) => boolean): boolean {
  return Array.isArray(value) && value.length <= most && value.every((item) => is(item));
}
