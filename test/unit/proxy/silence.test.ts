import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { ServicePolicy } from '../../../src/model/policy.ts';
import type { Instance, Service, ServiceName } from '../../../src/model/service.ts';
import { Carriage } from '../../../src/proxy/carriage.ts';
import type { ConnectionEntry } from '../../../src/proxy/connections.ts';
import type { SearchDependencies } from '../../../src/proxy/outbound-dependencies.ts';
import { Silence, whenSilent } from '../../../src/proxy/silence.ts';
import { MemoryChannel } from './memory-channel.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

const after = (milliseconds: number, expired: () => void) => {
  const timer = setTimeout(expired, milliseconds);
  return () => clearTimeout(timer);
};

it('lasts from the look that saw something new', () => {
  const silence = new Silence();
  expect(silence.at(1000, 5)).toBe(0);
  expect(silence.at(3000, 5)).toBe(2000);
  expect(silence.at(4000, 6)).toBe(0);
  expect(silence.at(4500, 6)).toBe(500);
});

it('is noticed once, and no more than a look too late', () => {
  let bytes = 0;
  const ended = vi.fn();
  whenSilent(1000, () => bytes, after, ended);
  for (let i = 0; i < 10; i++) {
    vi.advanceTimersByTime(600);
    bytes++;
  }
  expect(ended).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1250);
  expect(ended).toHaveBeenCalledTimes(1);
  const taken = vi.fn();
  whenSilent(1000, () => bytes, after, taken)();
  vi.advanceTimersByTime(10_000);
  expect(taken).not.toHaveBeenCalled();
  expect(vi.getTimerCount()).toBe(0);
});

it('ends an opaque connection where the policy of its service has a bound', () => {
  let policy: ServicePolicy = {};
  const upstreams: MemoryChannel[] = [];
  const deps = {
    pick: () => ({ id: '1', zone: 'z' }) as Instance,
    started: () => ({ connected() {}, failed() {}, answered() {}, finished() {} }),
    open: () => {
      const channel = new MemoryChannel();
      upstreams.push(channel);
      return { channel, path: 'local', viaAgent: false };
    },
    ...{ reached() {}, unreached() {}, after, breaker: () => undefined, policy: () => policy },
    settings: () => ({ attempts: 3, replayBuffer: 10, agentPatience: 1000, connectTimeout: 5000 }),
  } as unknown as SearchDependencies;
  const carry = () => {
    const client = new MemoryChannel();
    const entry = {
      service: 'web' as ServiceName,
      attempts: 0,
      finish: () => {},
    } as unknown as ConnectionEntry;
    const service = { name: 'web', mode: 'strict' } as unknown as Service;
    const origin = { address: undefined, program: undefined };
    new Carriage(client, entry, deps).toward({ service, instance: undefined }, origin);
    upstreams.at(-1)!.handler.open?.();
    return client;
  };
  const unbounded = carry();
  policy = { timeouts: { idle: 4000 } };
  const bounded = carry();
  vi.advanceTimersByTime(3000);
  bounded.handler.data(Buffer.from('x'));
  vi.advanceTimersByTime(3000);
  expect(bounded.resetWith).toBeUndefined();
  vi.advanceTimersByTime(3000);
  expect(bounded.resetWith).toBe('timeout');
  expect(upstreams[1]!.resetWith).toBe('timeout');
  vi.advanceTimersByTime(3_600_000);
  expect(unbounded.resetWith).toBeUndefined();
});
