import { parseEndpoint } from '../../../src/model/address.ts';
import type { ConnectionRecord } from '../../../src/model/connection.ts';
import { noPolicy } from '../../../src/model/policy.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { type ConnectionEntry, Connections } from '../../../src/proxy/connections.ts';
import { Detector } from '../../../src/proxy/detector.ts';
import type { Detected, DetectionSettings } from '../../../src/proxy/opening-dependencies.ts';
import type { Begun } from '../../../src/proxy/protocols.ts';
import { MemoryChannel } from './memory-channel.ts';

function instance(id: string): Instance {
  return {
    ...{ id: id as InstanceId, address: parseEndpoint(`10.0.0.${id}:80`)!, node: `n${id}` as NodeName },
    ...{ zone: 'z', labels: {}, weight: 100, draining: false },
  };
}

const service: Service = {
  ...{ name: 'web' as ServiceName, protocol: 'auto', mode: 'strict', interchangeable: false },
  ...{ balance: 'round-robin', hosts: [], addresses: [], instances: [instance('1'), instance('2')] },
};

/** A detector with a caller, instances and time that the test drives. */
export class DetectionBench {
  client = new MemoryChannel();
  readonly upstreams: MemoryChannel[] = [];
  readonly records: ConnectionRecord[] = [];
  readonly detected: Detected[] = [];
  /** Of tokens. */
  readonly outcomes: string[] = [];
  readonly timers = new Set<() => void>();
  /** What HTTP was given. */
  http: { readonly begun: Begun | undefined; readonly entry: ConnectionEntry } | undefined;
  viaAgent = false;
  settings: DetectionSettings = { enabled: true, timeout: 250, serverFirstPorts: [3306] };

  get upstream(): MemoryChannel {
    return this.upstreams.at(-1)!;
  }

  /** What the instance was sent, and what HTTP was. */
  get begun(): string {
    return Buffer.concat([...(this.http?.begun?.bytes ?? [])]).toString('latin1');
  }

  readonly #detector: Detector;
  readonly #live: Connections;

  constructor() {
    this.#live = new Connections('0', { started: () => {}, ended: (record) => this.records.push(record) });
    this.#detector = new Detector({
      pick: (of, exclude) => of.instances.find((candidate) => !exclude.has(candidate)),
      started: (_service, { id }) => ({
        connected: () => this.outcomes.push(`${id} connected`),
        failed: () => this.outcomes.push(`${id} failed`),
        answered: () => {},
        finished: () => this.outcomes.push(`${id} finished`),
      }),
      open: () => {
        const channel = new MemoryChannel();
        this.upstreams.push(channel);
        return { channel, path: 'tunnel', viaAgent: this.viaAgent };
      },
      past: () => new MemoryChannel(),
      reached: () => {},
      unreached: () => {},
      after: (_milliseconds, expired) => {
        this.timers.add(expired);
        return () => this.timers.delete(expired);
      },
      settings: () => ({ attempts: 3, replayBuffer: 1000, agentPatience: 1000, connectTimeout: 5000 }),
      policy: () => noPolicy,
      breaker: () => undefined,
      detection: () => this.settings,
      detected: (what) => this.detected.push(what),
      http: (_client, entry, _origin, _target, given) => {
        this.http = { begun: given, entry };
      },
    });
  }

  /** A connection. */
  start(port = 80, begun?: Begun): this {
    const entry = this.#live.begin({
      ...{ direction: 'outbound', callerNode: undefined, callerService: undefined },
      ...{ callerAddress: '10.0.0.9:4000', destination: `10.0.0.1:${port}` },
    });
    const origin = { address: undefined, program: undefined };
    this.#detector.accept(this.client, entry, origin, { service, instance: undefined }, begun);
    return this;
  }

  says(text: string): void {
    this.client.handler.data(Buffer.from(text, 'latin1'));
  }

  answers(text: string): void {
    this.upstream.handler.data(Buffer.from(text, 'latin1'));
  }

  opens(): void {
    this.upstream.handler.open!();
  }

  /** The time of everything that waits is over. */
  expire(): void {
    for (const expired of [...this.timers]) if (this.timers.delete(expired)) expired();
  }

  /** A connection that speaks HTTP, and is over: the next one is expected to do so, too. */
  expectHttp(): this {
    this.start();
    this.says('GET / HTTP/1.1\r\n');
    this.opens();
    this.http!.entry.finish('done');
    this.client = new MemoryChannel();
    for (const told of [this.upstreams, this.records, this.detected, this.outcomes]) told.length = 0;
    this.http = undefined;
    return this;
  }
}
