import type { ConnectionRecord } from '../../model/connection.ts';
import type { RequestRecord } from '../../model/request.ts';

/** Connections, and requests, that are remembered when they are over. */
const MOST_ENDED = 1000;
/** Longest text of a record that is told: targets, names of hosts and details are as long as others make them. */
const MOST_TEXT = 500;

/** What `mesh-node why` is told of a connection or request that is over. */
export type EndedRecord =
  | ({ readonly kind: 'connection' } & ConnectionRecord)
  | ({ readonly kind: 'request' } & RequestRecord);

/** The newest of one kind, in a ring. */
class Ring<T> {
  readonly #items: T[] = [];
  #next = 0;

  add(item: T): void {
    this.#items[this.#next] = item;
    this.#next = (this.#next + 1) % MOST_ENDED;
  }

  get size(): number {
    return this.#items.length;
  }

  /** The newest first. */
  *[Symbol.iterator](): Generator<T> {
    const { length } = this.#items;
    for (let back = 1; back <= length; back++) yield this.#items[(this.#next - back + length) % length]!;
  }
}

/** The connections and requests of this worker that ended last. Keeps the records that were made for the log anyway. */
export class Ended {
  readonly #connections = new Ring<ConnectionRecord>();
  readonly #requests = new Ring<RequestRecord>();

  connection(record: ConnectionRecord): void {
    this.#connections.add(record);
  }

  request(record: RequestRecord): void {
    const { target, authority } = record;
    const long = (target?.length ?? 0) > MOST_TEXT || (authority?.length ?? 0) > MOST_TEXT;
    this.#requests.add(long ? shortened(record) : record);
  }

  get size(): number {
    return this.#connections.size + this.#requests.size;
  }

  /** The newest of both kinds, half and half. */
  list(limit: number): EndedRecord[] {
    const items: EndedRecord[] = [];
    const half = Math.ceil(limit / 2);
    for (const record of this.#requests) {
      if (items.length === half) break;
      items.push({ kind: 'request', ...shortened(record) });
    }
    for (const record of this.#connections) {
      if (items.length === limit) break;
      items.push({ kind: 'connection', ...shortened(record) });
    }
    return items;
  }
}

/** With texts that the supervisor takes (control/listings.ts), at any depth. */
function shortened<T>(value: T): T {
  if (typeof value === 'string') return value.slice(0, MOST_TEXT) as T;
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(shortened) as T;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, shortened(one)])) as T;
}
