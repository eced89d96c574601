import { beforeEach, describe, expect, test } from 'vitest';
import { CircuitBreaker } from '../../../src/limit/circuit-breaker.ts';
import type { CircuitBreaker as Bounds } from '../../../src/model/policy.ts';
import { noPolicy } from '../../../src/model/policy.ts';
import type { Instance, Service, ServiceName } from '../../../src/model/service.ts';
import type { SearchDependencies } from '../../../src/proxy/outbound-dependencies.ts';
import { UpstreamSearch } from '../../../src/proxy/search.ts';
import type { FoundUpstream, Seeker } from '../../../src/proxy/seeker.ts';
import { MemoryChannel, turn } from './memory-channel.ts';

const instance = { id: '1', zone: 'dc1' } as Instance;
const other = { id: '2', zone: 'dc1' } as Instance;
const web = {
  name: 'web' as ServiceName,
  mode: 'permissive',
  instances: [instance, other],
} as unknown as Service;

let bounds: Bounds;
let breaker: CircuitBreaker;
let channels: MemoryChannel[];

beforeEach(() => {
  bounds = {};
  channels = [];
  breaker = new CircuitBreaker({
    bounds: () => bounds,
    workers: () => 1,
    now: () => 0,
    onTransition: () => {},
    onRefused: () => {},
  });
});

const deps = {
  pick: (of: Service, exclude: ReadonlySet<Instance>) => of.instances.find((one) => !exclude.has(one)),
  started: () => ({ connected() {}, failed() {}, answered() {}, finished() {} }),
  open: () => {
    const channel = new MemoryChannel();
    channels.push(channel);
    return { channel, path: 'direct', viaAgent: false };
  },
  reached: () => {},
  unreached: () => {},
  after: () => () => {},
  settings: () => ({ attempts: 3, replayBuffer: 10, agentPatience: 1000, connectTimeout: 5000 }),
  policy: () => noPolicy,
  breaker: () => breaker,
} as unknown as SearchDependencies;

class Caller implements Seeker {
  upstream: FoundUpstream | undefined;
  failure: string | undefined;
  readonly search = new UpstreamSearch(
    { service: web, instance: undefined },
    { address: undefined, program: undefined },
    deps,
    { attempts: 0, instance: undefined, zone: undefined, path: 'none', failures: undefined },
    this,
  );

  start(): this {
    this.search.start();
    return this;
  }

  trying(): void {}

  found(upstream: FoundUpstream): void {
    this.upstream = upstream;
    upstream.channel.handler = { data() {}, end() {}, drain() {}, close() {} };
  }

  failed(reason: string, detail: string | undefined): void {
    this.failure = `${reason}: ${detail}`;
  }
}

const active = () => [breaker.active('pending'), breaker.active('connections')];

test('an instance without an agent that cannot be reached is followed by another one', () => {
  const caller = new Caller().start();
  channels[0]!.close({ reason: 'refused', delivered: false, source: 'callee' });
  expect(channels).toHaveLength(2);
  channels[1]!.handler.open!();
  expect(caller.upstream?.instance).toBe(other);
});

describe('bounds on connections to a service', () => {
  test('one too many is refused at once, and one that ends makes room', async () => {
    bounds = { connections: 1 };
    const first = new Caller().start();
    channels[0]!.handler.open!();
    expect(active()).toEqual([0, 1]);
    expect(new Caller().start().failure).toBe('overload: circuit breaker: connections');
    expect(active()).toEqual([0, 1]);
    first.upstream!.channel.reset();
    await turn();
    expect(active()).toEqual([0, 0]);
    expect(new Caller().start().failure).toBeUndefined();
  });

  test('searches wait for an instance, as many as may', () => {
    bounds = { pending: 1 };
    new Caller().start();
    expect(active()).toEqual([1, 1]);
    expect(new Caller().start().failure).toBe('overload: circuit breaker: pending');
    channels[0]!.handler.open!();
    expect(active()).toEqual([0, 1]);
    expect(new Caller().start().failure).toBeUndefined();
  });

  test('attempts that fail and callers that go give everything back', async () => {
    const failing = new Caller().start();
    channels[0]!.close({ reason: 'refused', delivered: false, source: 'callee' });
    expect(active()).toEqual([1, 1]);
    channels[1]!.close({ reason: 'reset', delivered: true, source: 'callee' });
    expect(failing.failure).toContain('reset');
    expect(active()).toEqual([0, 0]);
    const going = new Caller().start();
    going.search.cancel();
    await turn();
    expect(active()).toEqual([0, 0]);
  });

  test('what is counted passes everything on', () => {
    const { search } = new Caller();
    search.start();
    const seen: string[] = [];
    const counted = new Caller().start();
    const raw = channels[1]!;
    raw.handler.open!();
    const { channel } = counted.upstream!;
    channel.handler = {
      data: (bytes) => seen.push(`data ${Buffer.from(bytes)}`),
      end: () => seen.push('end'),
      drain: () => seen.push('drain'),
      close: ({ reason }) => seen.push(`close ${reason}`),
    };
    raw.handler.data(Buffer.from('x'));
    raw.handler.drain();
    raw.handler.end();
    channel.resume();
    expect(raw.paused).toBe(false);
    channel.pause();
    expect(raw.paused).toBe(true);
    raw.full = true;
    expect(channel.write(Buffer.from('y'))).toBe(false);
    channel.end();
    expect([raw.text, raw.ended]).toEqual(['y', true]);
    raw.close({ reason: 'done', delivered: true });
    expect(seen).toEqual(['data x', 'drain', 'end', 'close done']);
  });
});
