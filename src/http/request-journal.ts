import type { RequestHead } from '../http1/request-head.ts';
import type { ConnectionPath, FailedAttempt } from '../model/connection.ts';
import type { RequestEndReason, RequestRecord, RequestSink } from '../model/request.ts';
import type { InstanceId, ServiceName } from '../model/service.ts';
import type { ConnectionEntry } from '../proxy/connections.ts';
import type { SearchJournal } from '../proxy/seeker.ts';

/** The journal of one request: filled while it lives, written down exactly once. */
export class RequestJournal implements SearchJournal {
  attempts = 0;
  failures: FailedAttempt[] | undefined;
  /** Undefined: it goes to a place outside of the mesh, or it is not known where. */
  service: ServiceName | undefined;
  /** Name of the route that it takes. */
  route: string | undefined;
  instance: InstanceId | undefined;
  zone: string | undefined;
  path: ConnectionPath = 'none';
  status = 0;
  requestBytes = 0;
  responseBytes = 0;
  reused = false;
  traceId: string | undefined;
  readonly #sink: RequestSink;
  readonly #entry: ConnectionEntry;
  readonly #number: number;
  readonly #head: RequestHead | undefined;
  readonly #startedAt = Date.now();
  readonly #startedHr = performance.now();
  #finished = false;

  /** `number`: of the connection's requests, from 1. `head`: undefined for what could not be read. */
  constructor(sink: RequestSink, entry: ConnectionEntry, number: number, head: RequestHead | undefined) {
    this.#sink = sink;
    this.#entry = entry;
    this.#number = number;
    this.#head = head;
    this.service = entry.service;
    sink.started();
  }

  /**
   * Its connection carries another protocol from now on, and is where the request is. `path`: as it was sent on, where that
   * is not as it came.
   */
  switched(path = this.#head?.path ?? ''): void {
    this.#place();
    this.#entry.judged = { method: this.#head?.method ?? '', path };
  }

  /** Access rules have denied it, or would have. */
  noted(what: string): void {
    this.#entry.access = what;
  }

  #place(): void {
    if (this.instance === undefined) return;
    const entry = this.#entry;
    entry.instance = this.instance;
    entry.zone = this.zone;
    entry.path = this.path;
  }

  /** Writes the request down; later calls change nothing. */
  finish(reason: RequestEndReason, detail: string | undefined): void {
    if (this.#finished) return;
    this.#finished = true;
    const entry = this.#entry;
    entry.attempts = Math.max(entry.attempts, this.attempts);
    this.#place();
    const record = this.#record(reason, detail);
    // The caller's name is on its way: the record waits for it, as a connection's does.
    const waits = entry.naming?.wait(({ caller, text }) =>
      this.#sink.ended({ ...record, caller, callerProgram: text }),
    );
    if (waits !== true) this.#sink.ended(record);
  }

  #record(reason: RequestEndReason, detail: string | undefined): RequestRecord {
    const entry = this.#entry;
    const head = this.#head;
    return {
      id: `${entry.id}.${this.#number}`,
      startedAt: this.#startedAt,
      durationMs: performance.now() - this.#startedHr,
      callerNode: entry.start.callerNode,
      callerService: entry.start.callerService,
      caller: entry.caller,
      callerProgram: entry.callerProgram,
      callerAddress: entry.start.callerAddress,
      service: this.service,
      route: this.route,
      instance: this.instance,
      zone: this.zone,
      path: this.path,
      method: head?.method,
      authority: head?.authority,
      target: head?.target,
      status: this.status,
      requestBytes: this.requestBytes,
      responseBytes: this.responseBytes,
      attempts: this.attempts,
      failures: this.failures,
      reused: this.reused,
      reason,
      detail,
      traceId: this.traceId,
    };
  }
}
