import type { AccessRequest } from '../access/rules.ts';
import type { Naming } from '../caller/identity.ts';
import type { Share } from '../caller/shares.ts';
import type { Caller } from '../model/caller.ts';
import type {
  ConnectionDirection,
  ConnectionPath,
  ConnectionRecord,
  EndReason,
  FailedAttempt,
} from '../model/connection.ts';
import { DenseSet, type DenseSetMember } from '../model/dense-set.ts';
import type { InstanceId, NodeName, ServiceName } from '../model/service.ts';
import type { RelayEnd } from './relay.ts';

/** A connection as it stands, for `mesh-node status connections`. */
export type LiveConnection = Omit<
  ConnectionRecord,
  'durationMs' | 'zone' | 'attempts' | 'access' | 'detected' | 'reason' | 'detail'
>;

/** What carries a connection's bytes, and counts them. */
export interface Carrier {
  /** From the caller. */
  readonly bytesSent: number;
  /** To the caller. */
  readonly bytesReceived: number;
  /** True when exactly one side has said that it is finished. */
  readonly halfClosed: boolean;
}

/** What is known of a connection when it begins. */
export interface ConnectionStart {
  readonly direction: ConnectionDirection;
  readonly callerNode: NodeName | undefined;
  readonly callerService: ServiceName | undefined;
  readonly callerAddress: string;
  readonly destination: string;
}

/** Where connections are written down; one for all of them. */
interface ConnectionBook {
  /** Makes ids of sequence numbers. */
  readonly prefix: string;
  finished(entry: ConnectionEntry, record: ConnectionRecord): void;
  finishedUnnamed(entry: ConnectionEntry, record: ConnectionRecord, naming: Naming): void;
}

/** The journal of one connection: filled while it lives, written down exactly once. */
export class ConnectionEntry implements DenseSetMember {
  /** Of the set of live connections. */
  place = -1;
  /** Order of beginning. */
  readonly sequence: number;
  readonly start: ConnectionStart;
  readonly startedAt = Date.now();
  /** Outbound: set once the kernel has said who called. */
  caller: Caller | undefined;
  /** Text of the caller; inbound: what the caller's agent said. */
  callerProgram: string | undefined;
  /** Outbound: what its caller has; left at the end. */
  share: Share | undefined;
  /** While the caller's name is being looked for: what is written down waits for it. */
  naming: Naming | undefined;
  service: ServiceName | undefined;
  instance: InstanceId | undefined;
  zone: string | undefined;
  path: ConnectionPath = 'none';
  attempts = 0;
  failures: FailedAttempt[] | undefined;
  /** `requests`: decided about one by one; a request: what follows it is its doing, and read by nobody. */
  judged: 'requests' | AccessRequest | undefined;
  /** What access control would have denied, or has: the last of it. */
  access: string | undefined;
  /** What came of finding out what it speaks. */
  detected: string | undefined;
  /** Set once both sides are joined. */
  relay: Carrier | undefined;
  /** Ends the connection from our side; given by its owner. */
  abort: (end: RelayEnd) => void = () => {};
  readonly #startedHr = performance.now();
  readonly #book: ConnectionBook;
  readonly #onFinish: (() => void) | undefined;
  #finished = false;
  /** Bytes at the last sweep, to find half-closed connections on which nothing moves. */
  #sweptBytes = -1;

  constructor(
    book: ConnectionBook,
    sequence: number,
    start: ConnectionStart,
    onFinish: (() => void) | undefined,
  ) {
    this.#book = book;
    this.sequence = sequence;
    this.start = start;
    this.#onFinish = onFinish;
  }

  get id(): string {
    return `${this.#book.prefix}-${this.sequence}`;
  }

  get bytesSent(): number {
    return this.relay?.bytesSent ?? 0;
  }

  get bytesReceived(): number {
    return this.relay?.bytesReceived ?? 0;
  }

  /** True when half-closed and without a byte since the last call. */
  stalledHalfClosed(): boolean {
    if (this.relay === undefined || !this.relay.halfClosed) {
      this.#sweptBytes = -1;
      return false;
    }
    const bytes = this.bytesSent + this.bytesReceived;
    const stalled = bytes === this.#sweptBytes;
    this.#sweptBytes = bytes;
    return stalled;
  }

  /** Writes the connection down; later calls change nothing. */
  finish(reason: EndReason, detail?: string): void {
    if (this.#finished) return;
    this.#finished = true;
    this.share?.leave();
    this.share = undefined;
    const record = this.#record(reason, detail);
    if (this.naming === undefined) this.#book.finished(this, record);
    else this.#book.finishedUnnamed(this, record, this.naming);
    this.#onFinish?.();
  }

  #record(reason: EndReason, detail: string | undefined): ConnectionRecord {
    const { start } = this;
    // Field by field: one object of one shape, where a spread would build it twice.
    return {
      id: this.id,
      direction: start.direction,
      callerNode: start.callerNode,
      callerService: start.callerService,
      caller: this.caller,
      callerProgram: this.callerProgram,
      callerAddress: start.callerAddress,
      destination: start.destination,
      startedAt: this.startedAt,
      durationMs: performance.now() - this.#startedHr,
      service: this.service,
      instance: this.instance,
      zone: this.zone,
      path: this.path,
      bytesSent: this.bytesSent,
      bytesReceived: this.bytesReceived,
      attempts: this.attempts,
      failures: this.failures,
      access: this.access,
      detected: this.detected,
      reason,
      detail,
    };
  }
}

/** Told of every connection: exactly one `ended` for each `started`. */
export interface ConnectionObserver {
  started(direction: ConnectionDirection): void;
  ended(record: ConnectionRecord): void;
}

/** The live connections of one worker, and the one place where their ends are recorded. */
export class Connections implements ConnectionBook {
  readonly #live = new DenseSet<ConnectionEntry>();
  readonly prefix: string;
  readonly #observer: ConnectionObserver;
  #sequence = 0;
  #onIdle: (() => void) | undefined;

  constructor(prefix: string, observer: ConnectionObserver) {
    this.prefix = prefix;
    this.#observer = observer;
  }

  get size(): number {
    return this.#live.size;
  }

  /** `onFinish` is told after the record was written. */
  begin(start: ConnectionStart, onFinish?: () => void): ConnectionEntry {
    const entry = new ConnectionEntry(this, ++this.#sequence, start, onFinish);
    this.#live.add(entry);
    this.#observer.started(start.direction);
    return entry;
  }

  /** @internal for the entries */
  finished(entry: ConnectionEntry, record: ConnectionRecord): void {
    this.#live.delete(entry);
    this.#observer.ended(record);
    if (this.#live.size === 0) this.#onIdle?.();
  }

  /** @internal for the entries: over before its caller had a name. The connection is gone, its record follows. */
  finishedUnnamed(entry: ConnectionEntry, record: ConnectionRecord, naming: Naming): void {
    this.#live.delete(entry);
    const waits = naming.wait(({ caller, text }) =>
      this.#observer.ended({ ...record, caller, callerProgram: text }),
    );
    if (!waits) this.#observer.ended(record);
    if (this.#live.size === 0) this.#onIdle?.();
  }

  /** The oldest live connections, at most `limit` of them. */
  list(limit: number): LiveConnection[] {
    const result: LiveConnection[] = [];
    const oldest = this.#live.values().sort((a, b) => a.sequence - b.sequence);
    for (const entry of oldest.slice(0, limit)) {
      result.push({
        id: entry.id,
        ...entry.start,
        caller: entry.caller,
        callerProgram: entry.callerProgram,
        startedAt: entry.startedAt,
        service: entry.service,
        instance: entry.instance,
        path: entry.path,
        bytesSent: entry.bytesSent,
        bytesReceived: entry.bytesReceived,
      });
    }
    return result;
  }

  /** Those that live now, in no particular order; an array of its own. */
  entries(): ConnectionEntry[] {
    return this.#live.values();
  }

  /** True while it is not over. */
  has(entry: ConnectionEntry): boolean {
    return this.#live.has(entry);
  }

  /** Ends half-closed connections on which nothing moved since the last call; call it every `limits.halfClosedIdle`. */
  sweep(): void {
    for (const entry of this.#live.values()) {
      if (entry.stalledHalfClosed()) entry.abort({ reason: 'timeout', detail: 'half-closed and idle' });
    }
  }

  /** Resolves when no connection is left, or after the deadline with all that were left aborted. */
  async drained(timeoutMs: number): Promise<number> {
    if (this.#live.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        this.#onIdle = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#onIdle = undefined;
    }
    const cut = this.#live.size;
    this.cut();
    return cut;
  }

  /** Aborts every live connection. */
  cut(): void {
    for (const entry of this.#live.values()) entry.abort({ reason: 'draining', detail: 'drain deadline' });
  }
}
