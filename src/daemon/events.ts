import type { InstanceId, ServiceName } from '../model/service.ts';

/** What somebody may want to be told about. */
export const eventKinds = [
  'circuit-breaker',
  'ejection',
  'outage',
  'rate-limit',
  'policy',
  'guard',
  'interception',
  'worker',
] as const;
export type EventKind = (typeof eventKinds)[number];

/** Longest text of one event. */
export const MAX_EVENT_TEXT = 400;

/** Something that happened in a worker. */
export interface WorkerEvent {
  readonly kind: EventKind;
  readonly service?: ServiceName;
  readonly instance?: InstanceId;
  /** One sentence for people. */
  readonly text: string;
}

/** An event as it is kept. */
export interface MeshEvent extends WorkerEvent {
  /** Grows by one with each event of this start of the agent. */
  readonly sequence: number;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** Process that saw it: `supervisor` or `worker-0`… */
  readonly process: string;
}

/** Events that are kept. */
const MOST_EVENTS = 1000;

/** The newest events of this agent. */
export class EventLog {
  readonly #events: MeshEvent[] = [];
  #sequence = 0;

  add(process: string, event: WorkerEvent): void {
    this.#sequence++;
    this.#events[this.#sequence % MOST_EVENTS] = {
      ...event,
      text: event.text.slice(0, MAX_EVENT_TEXT),
      sequence: this.#sequence,
      at: Date.now(),
      process,
    };
  }

  /** Events behind `after`, in order; the newest `limit` of them. */
  since(after: number, limit: number): readonly MeshEvent[] {
    // Of an earlier start of the agent: all that there is comes behind it.
    const known = after > this.#sequence ? 0 : after;
    const first = Math.max(known + 1, this.#sequence - Math.min(limit, MOST_EVENTS, this.#sequence) + 1, 1);
    const events: MeshEvent[] = [];
    for (let sequence = first; sequence <= this.#sequence; sequence++) {
      events.push(this.#events[sequence % MOST_EVENTS]!);
    }
    return events;
  }
}
