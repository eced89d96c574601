import { type EndpointKey, endpointKey, parseEndpoint } from '../model/address.ts';

/** Pairs of caller and destination that are remembered; beyond it the one that was not seen for longest goes. */
const MAX_OBSERVATIONS = 10_000;
/** Connections of the last moments by which packets that are sent again are known. */
const MAX_RECENT = 4096;

/** How often one caller opened connections to one destination. Times are milliseconds since the epoch. */
export interface Observation {
  readonly caller: string;
  readonly destination: EndpointKey;
  readonly count: number;
  readonly firstSeen: number;
  readonly lastSeen: number;
}

/** Who calls whom on this host, in bounded memory. */
export class Observations {
  readonly #most: number;
  /** The one seen last stands last. */
  readonly #pairs = new Map<string, Observation>();
  /** Two generations of what was seen lately: the older one is dropped as a whole. */
  #recent = new Set<string>();
  #recentBefore = new Set<string>();
  #forgotten = 0;

  constructor(most = MAX_OBSERVATIONS) {
    this.#most = most;
  }

  get size(): number {
    return this.#pairs.size;
  }

  /** Pairs that had to go because there were too many. */
  get forgotten(): number {
    return this.#forgotten;
  }

  /** True the first time that a connection, told apart by `identity`, is seen: its first packet may come again. */
  isNew(identity: string): boolean {
    if (this.#recent.has(identity) || this.#recentBefore.has(identity)) return false;
    if (this.#recent.size >= MAX_RECENT) {
      this.#recentBefore = this.#recent;
      this.#recent = new Set();
    }
    this.#recent.add(identity);
    return true;
  }

  /** One connection more. */
  note(caller: string, destination: EndpointKey, now: number): void {
    const before = this.#pairs.get(keyOf(caller, destination));
    this.#put({
      caller,
      destination,
      count: (before?.count ?? 0) + 1,
      firstSeen: before?.firstSeen ?? now,
      lastSeen: now,
    });
  }

  /** Takes what was written down before, under what is known already. */
  restore(observations: Iterable<Observation>): void {
    for (const observation of observations) this.#put(observation);
  }

  [Symbol.iterator](): Iterator<Observation> {
    return this.#pairs.values();
  }

  #put(observation: Observation): void {
    const key = keyOf(observation.caller, observation.destination);
    this.#pairs.delete(key);
    this.#pairs.set(key, observation);
    if (this.#pairs.size <= this.#most) return;
    this.#forgotten++;
    const [oldest] = this.#pairs.keys();
    this.#pairs.delete(oldest!);
  }
}

function keyOf(caller: string, destination: EndpointKey): string {
  return `${caller} ${destination}`;
}

/** Reads one observation from a file; undefined when it is none. */
export function parseObservation(record: unknown): Observation | undefined {
  if (typeof record !== 'object' || record === null) return undefined;
  const { caller, destination, count, firstSeen, lastSeen } = record as Readonly<Record<string, unknown>>;
  if (typeof caller !== 'string' || !/^[\x21-\x7e]{1,300}$/.test(caller)) return undefined;
  const endpoint = typeof destination === 'string' ? parseEndpoint(destination) : undefined;
  if (endpoint === undefined || !isCount(count) || !isCount(firstSeen) || !isCount(lastSeen))
    return undefined;
  return { caller, destination: endpointKey(endpoint), count, firstSeen, lastSeen };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
