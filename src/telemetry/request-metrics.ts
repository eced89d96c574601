import { type ConnectionPath, connectionPaths, endReasons } from '../model/connection.ts';
import { errorCodes } from '../model/errors.ts';
import { policyReasons, type RequestRecord, type RequestSink } from '../model/request.ts';
import type { CounterHandle, Counters, HistogramHandle } from './counters.ts';
import { metrics } from './definitions.ts';

/** Classes of a status; `none`: nothing was answered. `other` are those beyond 599, which exist. */
const statusClasses = ['none', '1xx', '2xx', '3xx', '4xx', '5xx', 'other'] as const;

/** Services whose handles are kept; beyond them they are resolved each time, which costs microseconds and no memory. */
const MOST_SERVICES = 10_000;

const pathIndex = Object.fromEntries(connectionPaths.map((path, at) => [path, at])) as Readonly<
  Record<ConnectionPath, number>
>;
const reasons: ReadonlySet<string> = new Set([...endReasons, ...errorCodes, ...policyReasons]);

/** Counts requests: `started` when a request begins, `ended` with its record. No allocation, no text made. */
export class RequestMetrics implements RequestSink {
  readonly #counters: Counters;
  readonly #active;
  readonly #services = new Map<string, ServiceRequests>();

  constructor(counters: Counters) {
    this.#counters = counters;
    this.#active = counters.gauge(metrics.requestsActive);
  }

  started(): void {
    this.#active.add(1);
  }

  ended(request: RequestRecord): void {
    this.#active.add(-1);
    const service = this.#service(request.service ?? 'none');
    if (reasons.has(request.reason)) service.ended(request, request.reason);
    else {
      service.ended(request, 'protocol');
      this.#counters.counter(metrics.requestRefusals, request.reason).add();
    }
  }

  #service(name: string): ServiceRequests {
    let service = this.#services.get(name);
    if (service === undefined) {
      service = new ServiceRequests(this.#counters, name);
      if (this.#services.size < MOST_SERVICES) this.#services.set(name, service);
    }
    return service;
  }
}

/** The handles of one service, resolved when they are needed first. */
class ServiceRequests {
  readonly #counters: Counters;
  readonly #name: string;
  /** By reason, then by class and path. */
  readonly #ends = new Map<string, (CounterHandle | undefined)[]>();
  /** By class. */
  readonly #durations: (HistogramHandle | undefined)[] = [];
  readonly #channels: { new?: CounterHandle; reused?: CounterHandle } = {};

  constructor(counters: Counters, name: string) {
    this.#counters = counters;
    this.#name = name;
  }

  ended({ status, path, reused, durationMs }: RequestRecord, reason: string): void {
    const classOf = status < 100 ? 0 : Math.min(Math.floor(status / 100), statusClasses.length - 1);
    this.#end(classOf, path, reason).add();
    this.#duration(classOf).observe(durationMs / 1000);
    if (path !== 'none') this.#channel(reused ? 'reused' : 'new').add();
  }

  #end(classOf: number, path: ConnectionPath, reason: string): CounterHandle {
    let handles = this.#ends.get(reason);
    if (handles === undefined) {
      handles = new Array<undefined>(statusClasses.length * connectionPaths.length).fill(undefined);
      this.#ends.set(reason, handles);
    }
    const at = classOf * connectionPaths.length + pathIndex[path];
    handles[at] ??= this.#counters.counter(
      metrics.requests,
      this.#name,
      statusClasses[classOf]!,
      path,
      reason,
    );
    return handles[at];
  }

  #duration(classOf: number): HistogramHandle {
    this.#durations[classOf] ??= this.#counters.histogram(
      metrics.requestDuration,
      this.#name,
      statusClasses[classOf]!,
    );
    return this.#durations[classOf];
  }

  #channel(channel: 'new' | 'reused'): CounterHandle {
    this.#channels[channel] ??= this.#counters.counter(metrics.requestChannels, this.#name, channel);
    return this.#channels[channel];
  }
}
