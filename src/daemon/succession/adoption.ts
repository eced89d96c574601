import type { ToWorker } from '../control/messages.ts';
import { AdoptedLife } from '../workers/worker-life.ts';
import { type WorkerEvents, WorkerProcess } from '../workers/worker-process.ts';
import type { WorkerHello } from './hello.ts';
import type { Arrival } from './reception.ts';

/** What a worker must have in common with this supervisor to be its own. */
export interface AdoptionTerms {
  readonly build: string;
  readonly fingerprint: string;
  /** Inodes of this agent's listening sockets. */
  readonly listeners: readonly number[];
  readonly size: number;
}

/** Why a worker cannot be adopted; undefined: it can. */
export function objection(hello: WorkerHello, terms: AdoptionTerms): string | undefined {
  if (hello.draining) return 'it drains';
  if (hello.build !== terms.build) return `it is of ${hello.build}`;
  if (hello.fingerprint !== terms.fingerprint) return 'settings that act at a start have changed';
  if (hello.index >= terms.size) return `only ${terms.size} workers are wanted`;
  const same =
    hello.listeners.length === terms.listeners.length &&
    terms.listeners.every((inode) => hello.listeners.includes(inode));
  return same ? undefined : 'it listens elsewhere';
}

/** What becomes of workers that came: one for each place that fits, the others are left over. */
export interface Adoption {
  readonly adopted: ReadonlyMap<number, Arrival>;
  readonly others: readonly { readonly arrival: Arrival; readonly why: string }[];
}

/** Decides about all of them, in the order in which they came. */
export function judge(arrivals: readonly Arrival[], terms: AdoptionTerms): Adoption {
  const adopted = new Map<number, Arrival>();
  const others: { arrival: Arrival; why: string }[] = [];
  for (const arrival of arrivals) {
    const { index } = arrival.hello;
    const why = objection(arrival.hello, terms) ?? (adopted.has(index) ? 'its place is taken' : undefined);
    if (why === undefined) adopted.set(index, arrival);
    else others.push({ arrival, why });
  }
  return { adopted, others };
}

/** A worker that serves goes on under this supervisor. */
export function adopt(
  { pid, hello, link }: Arrival,
  hangTimeoutMs: number,
  events: WorkerEvents,
): WorkerProcess {
  link.strict = true; // it is of this very build
  return new WorkerProcess(hello.index, new AdoptedLife(pid), link, hangTimeoutMs, events, 'serving');
}

/** Has a worker let go of its ports at once; it ends by itself. */
export function dismiss({ link }: Arrival, timeoutMs: number): void {
  const message: ToWorker = { t: 'drain', timeoutMs, letGo: true };
  link.send(message);
  link.finish(() => link.close());
}
