import { vi } from 'vitest';
import type { RequestLimits } from '../../../src/http/admission.ts';
import { HttpOutbound } from '../../../src/http/http-outbound.ts';
import { type ClientAddress, parseEndpoint } from '../../../src/model/address.ts';
import type { ConnectionRecord } from '../../../src/model/connection.ts';
import { noPolicy, type Retries, type ServicePolicy } from '../../../src/model/policy.ts';
import type { RequestRecord } from '../../../src/model/request.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { type ConnectionEntry, Connections } from '../../../src/proxy/connections.ts';
import type { Origin } from '../../../src/proxy/origin.ts';
import type { Choice } from '../../../src/proxy/outbound-dependencies.ts';
import { MemoryChannel, turn } from '../proxy/memory-channel.ts';

/** A side of the mesh that speaks text. */
class Peer extends MemoryChannel {
  says(text: string): void {
    this.handler.data(Buffer.from(text, 'latin1'));
  }
}

/** A connection to an instance. */
export class Dialled extends Peer {
  readonly to: string;

  constructor(to: string) {
    super();
    this.to = to;
  }

  /** Takes the connection, and answers what came. */
  answers(text: string): this {
    if (this.written.length === 0 || !this.accepted) this.takes();
    this.says(text);
    return this;
  }

  takes(): this {
    if (this.accepted) return this;
    this.accept();
    this.handler.open?.();
    return this;
  }

  loses(): this {
    this.takes();
    this.close({ reason: 'reset', delivered: true });
    return this;
  }

  refuses(): this {
    this.close({ reason: 'refused', delivered: false });
    return this;
  }
}

/** A caller's connection. */
export class Caller extends Peer {
  readonly entry: ConnectionEntry;

  constructor(entry: ConnectionEntry) {
    super();
    this.entry = entry;
  }
}

/** How an attempt went, as its token was told. */
interface Outcome {
  readonly to: string;
  readonly statuses: number[];
  failed: boolean;
  over: boolean;
}

/** All that may be said of retries, with what is wanted otherwise. */
export function retriesWith(some: Partial<Retries>): Retries {
  return {
    ...{ on: ['connect-failure', 'reset', 'timeout', 'status'], statuses: [503], headers: [], attempts: 2 },
    ...{ methods: ['GET', 'HEAD', 'PUT'], backoff: { base: 0, max: 0 }, replayBuffer: 16 },
    ...{ budget: { percent: 20, perSecond: 10 }, ...some },
  };
}

/**
 * The way out of a node with one service `web` on channels of memory, all of them plain TCP. Time is vitest's: `install`
 * it first.
 */
export class ChannelMesh {
  policy: ServicePolicy = noPolicy;
  /** Undefined: nothing is bounded. */
  limits: RequestLimits | undefined;
  /** Name of the rate limit that connections are over. */
  overRate: string | undefined;
  protocol: Service['protocol'] = 'http';
  instances: Instance[] = ['1', '2', '3'].map((id) => instanceOf(id));
  choices: (Choice | undefined)[] = [];
  random = (): number => 0.5;
  /** Whether access rules let a caller in, on a new channel or on one that is open. */
  admits: (service: Service, instance: Instance, origin: Origin) => boolean = () => true;
  readonly dialled: Dialled[] = [];
  readonly outcomes: Outcome[] = [];
  readonly records: RequestRecord[] = [];
  readonly ended: ConnectionRecord[] = [];
  readonly http: HttpOutbound;
  readonly #connections: Connections;
  #port = 4000;

  static install(): void {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  }

  constructor() {
    const after = (milliseconds: number, expired: () => void) => {
      const timer = setTimeout(expired, milliseconds);
      return () => clearTimeout(timer);
    };
    const token = (_service: Service, { id }: Instance) => {
      const outcome: Outcome = { to: id, statuses: [], failed: false, over: false };
      this.outcomes.push(outcome);
      return {
        connected() {},
        failed: () => {
          outcome.failed = true;
        },
        answered: (status: number) => void outcome.statuses.push(status),
        finished: () => {
          outcome.over = true;
        },
      };
    };
    this.#connections = new Connections('0', {
      started: () => {},
      ended: (record) => this.ended.push(record),
    });
    this.http = new HttpOutbound({
      node: 'me' as NodeName,
      pick: (of, exclude, choice) => {
        this.choices.push(choice);
        return of.instances.find((one) => !exclude.has(one) && hasLabels(one, choice));
      },
      started: token,
      reusing: token,
      mayReuse: (service, instance, origin) => this.admits(service, instance, origin),
      direct: () => new MemoryChannel(),
      shared: { route: () => ({ kind: 'passthrough' }), named: () => undefined },
      explicit: {
        find: (host) =>
          host === this.service.name ? { kind: 'service', service: this.service } : { kind: 'unknown', host },
        resolve: async () => [],
        forbidden: () => undefined,
      },
      open: (service, instance, origin) => {
        const { id } = instance;
        const channel = new Dialled(id);
        if (!this.admits(service, instance, origin)) {
          const closed = { reason: 'denied', delivered: false, source: 'callee', detail: 'rule x' } as const;
          queueMicrotask(() => channel.close(closed));
        }
        this.dialled.push(channel);
        return { channel, path: 'local', viaAgent: false };
      },
      past: () => new MemoryChannel(),
      reached: () => {},
      unreached: () => {},
      after,
      breaker: () => undefined,
      overRate: () => this.overRate,
      policy: () => this.policy,
      settings: () => SETTINGS,
      random: () => this.random(),
      requests: { started: () => {}, ended: (record) => this.records.push(record) },
      limits: {
        rates: { admit: (...request) => this.limits?.rates.admit(...request) },
        services: {
          breaker: (service) => this.limits?.services.breaker(service),
          request: (service) => this.limits?.services.request(service),
          tryRetry: (service, budget) => this.limits?.services.tryRetry(service, budget) ?? true,
        },
      },
    });
  }

  get service(): Service {
    return {
      ...{ name: 'web' as ServiceName, protocol: this.protocol, mode: 'strict', interchangeable: false },
      ...{ balance: 'round-robin', hosts: [], addresses: [], instances: this.instances },
    };
  }

  /** A caller that has said this. `explicit`: to the explicit proxy. */
  call(text = '', explicit = false): Caller {
    const from = `10.0.0.9:${this.#port++}`;
    const entry = this.#connections.begin({
      ...{ direction: 'outbound', callerNode: 'me' as NodeName, callerService: undefined },
      ...{ callerAddress: from, destination: '10.1.0.1:80' },
    });
    entry.callerProgram = 'unit:a.service';
    if (!explicit) entry.service = this.service.name;
    const caller = new Caller(entry);
    const origin = { address: parseEndpoint(from) as ClientAddress, program: entry.callerProgram };
    if (explicit) this.http.acceptExplicit(caller, entry, origin);
    else this.http.accept(caller, entry, origin, { service: this.service, instance: undefined });
    if (text !== '') caller.says(text);
    return caller;
  }

  /** The connection made last. */
  get last(): Dialled {
    return this.dialled.at(-1)!;
  }

  /** Whom it went to, in order. */
  get to(): string {
    return this.dialled.map(({ to }) => to).join(' ');
  }

  /** Attempts that are not over. */
  get active(): number {
    return this.outcomes.filter(({ over }) => !over).length;
  }

  /** Lets time pass, and what was put off happen. */
  async pass(milliseconds: number): Promise<void> {
    await vi.advanceTimersByTimeAsync(milliseconds);
    await turn();
  }
}

const SETTINGS = { attempts: 3, replayBuffer: 16, agentPatience: 1000, connectTimeout: 5000 };

export function instanceOf(id: string, labels: Readonly<Record<string, string>> = {}): Instance {
  return {
    id: id as InstanceId,
    address: parseEndpoint(`10.0.1.${id}:80`)!,
    ...{ zone: 'z', labels, weight: 100, draining: false },
  };
}

function hasLabels({ labels }: Instance, choice: Choice | undefined): boolean {
  return Object.entries(choice?.subset ?? {}).every(([name, value]) => labels[name] === value);
}
