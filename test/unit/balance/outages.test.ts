import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { meansUnreached, Outages, type ProbeOutcome } from '../../../src/balance/outages.ts';
import { parseEndpoint } from '../../../src/model/address.ts';
import type { Instance, InstanceId, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot } from '../../../src/model/snapshot.ts';

const INTERVAL = 1000;

function instance(id: string, draining = false): Instance {
  return {
    id: id as InstanceId,
    address: parseEndpoint('10.0.0.1:80')!,
    zone: 'z',
    labels: {},
    weight: 100,
    draining,
  };
}

function service(name: string, instances: readonly Instance[]): Service {
  return {
    name: name as ServiceName,
    protocol: 'tcp',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances,
  };
}

function snapshotOf(...services: Service[]): Snapshot {
  return applyDelta(emptySnapshot, {
    base: 0,
    services,
    removedServices: [],
    nodes: [],
    removedNodes: [],
  });
}

interface Asked {
  readonly instance: string;
  answer(outcome: ProbeOutcome): void;
}

function setup(...services: Service[]) {
  const asked: Asked[] = [];
  const told: string[] = [];
  const outages = new Outages({
    probe: (_service, { id }, answer) => asked.push({ instance: id, answer }),
    interval: () => INTERVAL,
    onChange: (down) =>
      told.push(down.map(({ service: name, instance: id }) => (id ? `${name}/${id}` : name)).join(' ')),
    random: () => 0,
  });
  outages.use(snapshotOf(...services));
  const fail = (of: Service, ...ids: string[]) =>
    outages.unreached(of, new Set(of.instances.filter(({ id }) => ids.includes(id))), undefined);
  return { outages, asked, told, fail };
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

describe('Outages', () => {
  it('holds a service for dead once a connection has failed at every instance, and asks until one is back', () => {
    const web = service('web', [instance('1'), instance('2')]);
    const { outages, asked, told, fail } = setup(web);
    fail(web, '1', '2');
    expect(told).toEqual(['web']);
    expect(asked).toEqual([]);
    // Soon at first, then with the whole interval: 125, 250, 500, 1000, 1000, …
    const rounds = [125, 250, 500, 1000, 1000];
    for (const [round, pause] of rounds.entries()) {
      vi.advanceTimersByTime(pause - 1);
      expect(asked.length).toBe(round * 2);
      vi.advanceTimersByTime(1);
      expect(asked.map((a) => a.instance).slice(round * 2)).toEqual(['1', '2']);
      for (const { answer } of asked.slice(round * 2)) answer('unreached');
    }
    expect(told).toEqual(['web']);
    vi.advanceTimersByTime(INTERVAL);
    asked.at(-1)!.answer('reached');
    expect(told).toEqual(['web', '']);
    vi.advanceTimersByTime(10 * INTERVAL);
    expect(asked.length).toBe(rounds.length * 2 + 2);
    expect(outages.down).toEqual([]);
  });

  it('asks those that a connection did not try before it says anything', () => {
    const web = service('web', [instance('1'), instance('2'), instance('3')]);
    const dead = setup(web);
    dead.fail(web, '1');
    expect(dead.asked.map((a) => a.instance)).toEqual(['2', '3']);
    dead.asked[0]!.answer('unreached');
    expect(dead.told).toEqual([]);
    dead.asked[1]!.answer('unreached');
    expect(dead.told).toEqual(['web']);

    const alive = setup(web);
    alive.fail(web, '1');
    alive.asked[1]!.answer('reached');
    alive.asked[0]!.answer('unreached');
    expect(alive.told).toEqual([]);
  });

  it('asks once in an interval for a service that is there now and then', () => {
    const web = service('web', [instance('1'), instance('2')]);
    const { asked, told, fail } = setup(web);
    fail(web, '1');
    asked[0]!.answer('reached');
    for (let i = 0; i < 100; i++) fail(web, '1');
    expect(asked.length).toBe(1);
    vi.advanceTimersByTime(INTERVAL);
    fail(web, '1');
    expect(asked.length).toBe(2);
    expect(told).toEqual([]);
  });

  it('says nothing when a probe cannot tell', () => {
    const web = service('web', [instance('1'), instance('2')]);
    const { asked, told, fail } = setup(web);
    fail(web, '1');
    asked[0]!.answer('unknown');
    expect(told).toEqual([]);
    fail(web, '1', '2');
    vi.advanceTimersByTime(INTERVAL);
    for (const { answer } of asked.slice(1)) answer('unknown');
    expect(told).toEqual(['web']);
  });

  it('never asks an instance again whose last probe is still out', () => {
    const web = service('web', [instance('1')]);
    const { asked, fail } = setup(web);
    fail(web, '1');
    vi.advanceTimersByTime(20 * INTERVAL);
    expect(asked.length).toBe(1);
    asked[0]!.answer('unreached');
    vi.advanceTimersByTime(INTERVAL);
    expect(asked.length).toBe(2);
  });

  it('holds an instance for dead that was called by its own address, and not its service', () => {
    const web = service('web', [instance('1'), instance('2')]);
    const { outages, asked, told } = setup(web);
    outages.unreached(web, new Set([web.instances[0]!]), web.instances[0]);
    expect(told).toEqual(['web/1']);
    vi.advanceTimersByTime(125);
    expect(asked.map((a) => a.instance)).toEqual(['1']);
    asked[0]!.answer('reached');
    expect(told).toEqual(['web/1', '']);
  });

  it('hears of a connection that got through', () => {
    const web = service('web', [instance('1')]);
    const { outages, told, fail } = setup(web);
    outages.reached(web.name, web.instances[0]!.id);
    expect(told).toEqual([]);
    fail(web, '1');
    outages.reached(web.name, web.instances[0]!.id);
    expect(told).toEqual(['web', '']);
  });

  it('follows the catalogue: a new instance is asked at once, what is gone is forgotten', () => {
    const web = service('web', [instance('1')]);
    const { outages, asked, told, fail } = setup(web);
    fail(web, '1');
    const grown = service('web', [instance('1'), instance('2')]);
    outages.use(snapshotOf(grown));
    expect(asked.map((a) => a.instance)).toEqual(['2']);
    expect(told).toEqual(['web']);
    asked[0]!.answer('reached');
    expect(told).toEqual(['web', '']);

    fail(grown, '1', '2');
    outages.use(snapshotOf());
    expect(told).toEqual(['web', '', 'web', '']);
    vi.advanceTimersByTime(10 * INTERVAL);
    expect(asked.length).toBe(1);
  });

  it('leaves draining instances out: rules speak for a service that has no others', () => {
    const web = service('web', [instance('1'), instance('2', true)]);
    const { outages, told, fail } = setup(web);
    fail(web, '1');
    expect(told).toEqual(['web']);
    outages.use(snapshotOf(service('web', [instance('1', true), instance('2', true)])));
    expect(told).toEqual(['web', '']);
  });

  it('has bounds: subjects, instances of one, probes at once', () => {
    const many = Array.from({ length: 300 }, (_, i) => service(`s${i}`, [instance('1')]));
    const big = service(
      'big',
      Array.from({ length: 65 }, (_, i) => instance(`${i}`)),
    );
    const { outages, asked, fail } = setup(...many, big);
    fail(big, '1');
    expect(asked).toEqual([]);
    for (const one of many) fail(one, '1');
    expect(outages.down.length).toBe(256);
    vi.advanceTimersByTime(125);
    expect(asked.length).toBe(32);
    asked[0]!.answer('unreached');
    expect(outages.down.length).toBe(256);
  });

  it('takes every word back when it stops', () => {
    const web = service('web', [instance('1')]);
    const { outages, asked, told, fail } = setup(web);
    fail(web, '1');
    outages.stop();
    expect(told).toEqual(['web', '']);
    vi.advanceTimersByTime(10 * INTERVAL);
    fail(web, '1');
    expect([asked, told.length]).toEqual([[], 2]);
  });
});

it.each([
  ['refused', true],
  ['timeout', true],
  ['no-instance', true],
  ['denied', false],
  ['overload', false],
  ['system', false],
  ['done', false],
] as const)('an attempt that ended with %s speaks of its instance: %s', (reason, speaks) => {
  expect(meansUnreached(reason)).toBe(speaks);
});
