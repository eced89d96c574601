import type { RequestRecord, RequestSink } from '../model/request.ts';
import type { AccessLog } from './access-log.ts';
import type { RequestMetrics } from './request-metrics.ts';

/** Which requests have a line in the access log: `telemetry.accessLogRequests`. */
type LoggedRequests = 'all' | 'failed' | 'off';

/** Counts every request, and logs those that are to be logged. */
export class RequestRecorder implements RequestSink {
  readonly #metrics: RequestMetrics;
  readonly #log: Pick<AccessLog, 'writeRequest'>;
  readonly #logged: () => LoggedRequests;

  constructor(metrics: RequestMetrics, log: Pick<AccessLog, 'writeRequest'>, logged: () => LoggedRequests) {
    this.#metrics = metrics;
    this.#log = log;
    this.#logged = logged;
  }

  started(): void {
    this.#metrics.started();
  }

  ended(record: RequestRecord): void {
    this.#metrics.ended(record);
    const logged = this.#logged();
    if (logged === 'all' || (logged === 'failed' && failed(record))) this.#log.writeRequest(record);
  }
}

/** It did not end in order, or the server said that it could not do it. */
function failed({ reason, status }: RequestRecord): boolean {
  return (reason !== 'done' && reason !== 'redirect') || status >= 500;
}
