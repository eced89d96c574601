import type {
  ConnectionDirection,
  ConnectionPath,
  ConnectionRecord,
  EndReason,
} from '../model/connection.ts';
import type { InstanceId, NodeName, ServiceName } from '../model/service.ts';
import type { Relay, RelayEnd } from './relay.ts';

/** A connection as it stands, for `mesh-node status connections`. */
export interface LiveConnection {
  readonly id: string;
  readonly direction: ConnectionDirection;
  readonly startedAt: number;
  readonly callerNode: NodeName | undefined;
  readonly callerService: ServiceName | undefined;
  readonly callerAddress: string;
  readonly destination: string;
  readonly service: ServiceName | undefined;
  readonly instance: InstanceId | undefined;
  readonly path: ConnectionPath;
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

/** What is known of a connection when it begins. */
export interface ConnectionStart {
  readonly direction: ConnectionDirection;
  readonly callerNode: NodeName | undefined;
  readonly callerService: ServiceName | undefined;
  readonly callerAddress: string;
  readonly destination: string;
}

/** The journal of one connection: filled while it lives, written down exactly once. */
export class ConnectionEntry {
  readonly id: string;
  readonly start: ConnectionStart;
  readonly startedAt = Date.now();
  service: ServiceName | undefined;
  instance: InstanceId | undefined;
  zone: string | undefined;
  path: ConnectionPath = 'none';
  attempts = 0;
  /** Set once both sides are joined. */
  relay: Relay | undefined;
  /** Ends the connection from our side; given by its owner. */
  abort: (end: RelayEnd) => void = () => {};
  readonly #startedHr = performance.now();
  readonly #onFinish: (entry: ConnectionEntry, record: ConnectionRecord) => void;
  #finished = false;
  /** Bytes at the last sweep, to find half-closed connections on which nothing moves. */
  #sweptBytes = -1;

  constructor(
    id: string,
    start: ConnectionStart,
    onFinish: (entry: ConnectionEntry, record: ConnectionRecord) => void,
  ) {
    this.id = id;
    this.start = start;
    this.#onFinish = onFinish;
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
    this.#onFinish(this, {
      id: this.id,
      ...this.start,
      startedAt: this.startedAt,
      durationMs: performance.now() - this.#startedHr,
      service: this.service,
      instance: this.instance,
      zone: this.zone,
      path: this.path,
      bytesSent: this.bytesSent,
      bytesReceived: this.bytesReceived,
      attempts: this.attempts,
      reason,
      detail,
    });
  }
}

/** Told of every connection: exactly one `ended` for each `started`. */
export interface ConnectionObserver {
  started(direction: ConnectionDirection): void;
  ended(record: ConnectionRecord): void;
}

/** The live connections of one worker, and the one place where their ends are recorded. */
export class Connections {
  readonly #live = new Set<ConnectionEntry>();
  readonly #prefix: string;
  readonly #observer: ConnectionObserver;
  #sequence = 0;
  #onIdle: (() => void) | undefined;

  constructor(prefix: string, observer: ConnectionObserver) {
    this.#prefix = prefix;
    this.#observer = observer;
  }

  get size(): number {
    return this.#live.size;
  }

  /** `onFinish` is told after the record was written. */
  begin(start: ConnectionStart, onFinish?: () => void): ConnectionEntry {
    const entry = new ConnectionEntry(`${this.#prefix}-${++this.#sequence}`, start, (finished, record) => {
      this.#live.delete(finished);
      this.#observer.ended(record);
      onFinish?.();
      if (this.#live.size === 0) this.#onIdle?.();
    });
    this.#live.add(entry);
    this.#observer.started(start.direction);
    return entry;
  }

  /** The oldest live connections, at most `limit` of them. */
  list(limit: number): LiveConnection[] {
    const result: LiveConnection[] = [];
    for (const entry of this.#live) {
      if (result.length === limit) break;
      result.push({
        id: entry.id,
        ...entry.start,
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

  /** Ends half-closed connections on which nothing moved since the last call; call it every `limits.halfClosedIdle`. */
  sweep(): void {
    for (const entry of this.#live) {
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
    for (const entry of this.#live) entry.abort({ reason: 'draining', detail: 'drain deadline' });
    return cut;
  }
}
