import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { MAX_FALLBACK_RULES } from '../../../src/capture/rules/fallback.ts';
import { FallbackCache } from '../../../src/daemon/interception/fallback-cache.ts';
import { type Ip, parseEndpoint } from '../../../src/model/address.ts';
import type { InstanceId, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot } from '../../../src/model/snapshot.ts';

const where = { node: 'a', zone: 'z', otherZones: [] };
const due = vi.fn();
const log = { warn: vi.fn() };
let cache: FallbackCache;

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
  cache = new FallbackCache(where, log, due);
});
afterEach(() => {
  cache.stop();
  vi.useRealTimers();
});

const service = (name: string, virtual: string, target: string): Service => ({
  name: name as ServiceName,
  protocol: 'tcp',
  mode: 'permissive',
  interchangeable: false,
  balance: 'round-robin',
  hosts: [],
  addresses: [],
  virtual: [virtual as Ip],
  instances: [
    {
      id: target as InstanceId,
      address: parseEndpoint(target)!,
      zone: 'z',
      labels: {},
      weight: 100,
      draining: false,
    },
  ],
});
const change = (from: Snapshot, services: Service[]): Snapshot =>
  applyDelta(from, { base: from.version, services, removedServices: [], nodes: [], removedNodes: [] });

test('many changes of a second are one, and the last is not forgotten', () => {
  const first = change(emptySnapshot, [service('orders', '240.0.0.1', '10.0.0.1:80')]);
  const entries = cache.of(first);
  expect(entries).toHaveLength(1);
  let latest = first;
  for (let port = 81; port < 90; port++) {
    latest = change(latest, [service('orders', '240.0.0.1', `10.0.0.1:${port}`)]);
    expect(cache.of(latest)).toBe(entries);
  }
  expect(due).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1000);
  expect(due).toHaveBeenCalledTimes(1);
  expect(cache.of(latest)[0]!.targets[0]!.port).toBe(89);
});

test('another configuration counts at once', () => {
  const snapshot = change(emptySnapshot, [service('orders', '240.0.0.1', '10.0.0.1:80')]);
  cache.of(snapshot);
  cache.configure({ ...where, zone: 'elsewhere' });
  expect(cache.of(snapshot)).toHaveLength(1);
  expect(due).not.toHaveBeenCalled();
});

test('too many are said once', () => {
  const many = Array.from({ length: MAX_FALLBACK_RULES + 7 }, (_, at) =>
    service(`s${at}`, `240.1.${at >> 8}.${at & 255}`, '10.0.0.1:80'),
  );
  let snapshot = change(emptySnapshot, many);
  cache.of(snapshot);
  expect(cache.left).toBe(7);
  snapshot = change(snapshot, [service('one-more', '240.2.0.1', '10.0.0.1:80')]);
  vi.advanceTimersByTime(2000);
  cache.of(snapshot);
  expect(cache.left).toBe(8);
  expect(log.warn).toHaveBeenCalledExactlyOnceWith(
    { left: 7, kept: MAX_FALLBACK_RULES },
    expect.stringContaining('too many virtual addresses'),
  );
}, 30_000);
