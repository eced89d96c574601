import type { ConnectionDirection, ConnectionPath, ConnectionRecord } from '../model/connection.ts';
import { connectionDirections, connectionPaths } from '../model/connection.ts';
import type { CounterHandle, Counters, GaugeHandle, HistogramHandle } from './counters.ts';
import { metrics } from './definitions.ts';

interface Flows {
  readonly sent: CounterHandle;
  readonly received: CounterHandle;
}

/** Counts connections: `started` when one is taken, `ended` with its record. Exactly one `ended` for each `started`. */
export class ConnectionMetrics {
  readonly #counters: Counters;
  readonly #active: Readonly<Record<ConnectionDirection, GaugeHandle>>;
  readonly #durations: Readonly<
    Record<ConnectionDirection, Readonly<Record<ConnectionPath, HistogramHandle>>>
  >;
  // The keys are made of closed sets and capped service names, so these grow to a bound. One lookup for a connection.
  readonly #ends = new Map<string, CounterHandle>();
  readonly #flows = new Map<string, Flows>();
  readonly #callers = new Map<string, CounterHandle>();

  constructor(counters: Counters) {
    this.#counters = counters;
    this.#active = record(connectionDirections, (direction) =>
      counters.gauge(metrics.connectionsActive, direction),
    );
    this.#durations = record(connectionDirections, (direction) =>
      record(connectionPaths, (path) => counters.histogram(metrics.connectionDuration, direction, path)),
    );
  }

  started(direction: ConnectionDirection): void {
    this.#active[direction].add(1);
  }

  ended(connection: ConnectionRecord): void {
    const { direction, path, reason } = connection;
    const service = connection.service ?? 'none';
    this.#active[direction].add(-1);
    this.#durations[direction][path].observe(connection.durationMs / 1000);
    this.#end(direction, service, path, reason).add();
    const flows = this.#flow(direction, service);
    flows.sent.add(connection.bytesSent);
    flows.received.add(connection.bytesReceived);
    if (direction === 'outbound' && connection.callerProgram !== undefined)
      this.#caller(connection.callerProgram).add();
  }

  #end(direction: string, service: string, path: string, reason: string): CounterHandle {
    const key = `${direction} ${path} ${reason} ${service}`;
    let handle = this.#ends.get(key);
    if (handle === undefined) {
      handle = this.#counters.counter(metrics.connections, direction, service, path, reason);
      if (this.#ends.size < MOST_KEYS) this.#ends.set(key, handle);
    }
    return handle;
  }

  #caller(caller: string): CounterHandle {
    let handle = this.#callers.get(caller);
    if (handle === undefined) {
      handle = this.#counters.counter(metrics.callerConnections, caller);
      if (this.#callers.size < MOST_KEYS) this.#callers.set(caller, handle);
    }
    return handle;
  }

  #flow(direction: string, service: string): Flows {
    const key = `${direction} ${service}`;
    let flows = this.#flows.get(key);
    if (flows === undefined) {
      flows = {
        sent: this.#counters.counter(metrics.connectionBytes, direction, service, 'sent'),
        received: this.#counters.counter(metrics.connectionBytes, direction, service, 'received'),
      };
      if (this.#flows.size < MOST_KEYS) this.#flows.set(key, flows);
    }
    return flows;
  }
}

/** Most resolved handles kept; beyond it they are resolved each time, which costs a microsecond and no memory. */
const MOST_KEYS = 10_000;

function record<K extends string, V>(keys: readonly K[], make: (key: K) => V): Readonly<Record<K, V>> {
  return Object.fromEntries(keys.map((key) => [key, make(key)])) as Record<K, V>;
}
