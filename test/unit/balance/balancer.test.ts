import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Balancer, type PickToken } from '../../../src/balance/balancer.ts';
import type { HealthTransition } from '../../../src/balance/health.ts';
import { type Endpoint, parseEndpoint } from '../../../src/model/address.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot } from '../../../src/model/snapshot.ts';

const NONE: ReadonlySet<Instance> = new Set();
const locality = { node: 'here' as NodeName, zone: 'a', otherZones: ['b', 'c'] };
const ejection = { ejectAfter: 3, ejectBase: 1000, ejectMax: 8000, maxEjectedPercent: 50 };

function instance(id: string, change: Partial<Instance> = {}): Instance {
  return {
    id: id as InstanceId,
    address: parseEndpoint('10.0.0.1:80') as Endpoint,
    zone: 'a',
    labels: {},
    weight: 100,
    draining: false,
    ...change,
  };
}

function service(instances: readonly Instance[], change: Partial<Service> = {}): Service {
  return {
    name: 'web' as ServiceName,
    protocol: 'tcp',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances,
    ...change,
  };
}

/** Numbers in [0, 1) that are the same in every run. */
function seeded(seed = 1): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function setup(change: Partial<typeof ejection> = {}) {
  const clock = { now: 0 };
  const transitions: string[] = [];
  const balancer = new Balancer({
    locality,
    ejection: { ...ejection, ...change },
    now: () => clock.now,
    random: seeded(),
    onTransition: ({ instance: id, from, to, until }: HealthTransition) =>
      transitions.push(`${id} ${from} → ${to}${until === undefined ? '' : ` until ${until}`}`),
  });
  const fail = (of: Service, target: Instance, times = 1) => {
    for (let i = 0; i < times; i++) {
      const token = balancer.started(of, target);
      token.failed();
      token.finished();
    }
  };
  const succeed = (of: Service, target: Instance) => {
    const token = balancer.started(of, target);
    token.connected();
    token.finished();
  };
  const picks = (of: Service, times: number) => {
    const counts: Record<string, number> = {};
    for (let i = 0; i < times; i++) {
      const id = balancer.pick(of, NONE)?.id ?? 'none';
      counts[id] = (counts[id] ?? 0) + 1;
    }
    return counts;
  };
  return { balancer, clock, transitions, fail, succeed, picks };
}

const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((id) => instance(id)) as [
  Instance,
  Instance,
  Instance,
  Instance,
];

describe('round robin', () => {
  test('gives everyone the same', () => {
    expect(setup().picks(service([a, b, c]), 300)).toEqual({ a: 100, b: 100, c: 100 });
  });

  test('follows the weights, and mixes the turns', () => {
    const { balancer } = setup();
    const heavy = service([instance('a', { weight: 3 }), instance('b', { weight: 1 })]);
    const order = Array.from({ length: 400 }, () => balancer.pick(heavy, NONE)!.id).join('');
    expect(order.replaceAll('b', '')).toHaveLength(300);
    expect(order).not.toContain('bb');
    expect(order).not.toContain('aaaa');
  });

  test('gives every instance its share, whatever the weights', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 8 }), (weights) => {
        const sum = weights.reduce((x, y) => x + y, 0);
        const of = service(weights.map((weight, i) => instance(`i${i}`, { weight })));
        const counts = setup().picks(of, sum * 4);
        weights.forEach((weight, i) => {
          // Smooth weighted round robin never strays from the exact share by as much as the number of instances.
          expect(Math.abs((counts[`i${i}`] ?? 0) - weight * 4)).toBeLessThanOrEqual(weights.length);
        });
      }),
      { numRuns: 200 },
    );
  });
});

describe('least connections', () => {
  const least = (instances: readonly Instance[]) => service(instances, { balance: 'least-connections' });

  test('fills up the emptiest', () => {
    const { balancer } = setup();
    const of = least([a, b, c]);
    const tokens: PickToken[] = [];
    const counts = new Map<string, number>();
    for (let i = 0; i < 30; i++) {
      const picked = balancer.pick(of, NONE)!;
      counts.set(picked.id, (counts.get(picked.id) ?? 0) + 1);
      tokens.push(balancer.started(of, picked));
    }
    expect([...counts.values()]).toEqual([10, 10, 10]);
    for (const token of tokens) token.finished();
    for (const token of tokens) token.finished(); // the second time does nothing
    expect(balancer.view(of.name).map(({ active }) => active)).toEqual([0, 0, 0]);
  });

  test('counts a connection by the weight of who carries it', () => {
    const { balancer } = setup();
    const of = least([instance('a', { weight: 300 }), instance('b')]);
    for (let i = 0; i < 40; i++) balancer.started(of, balancer.pick(of, NONE)!);
    const active = Object.fromEntries(balancer.view(of.name).map((view) => [view.id, view.active]));
    expect(active).toEqual({ a: 30, b: 10 });
  });

  test('stays even among many, with two looked at each time', () => {
    const { balancer } = setup();
    const of = least(Array.from({ length: 100 }, (_, i) => instance(`i${i}`)));
    for (let i = 0; i < 10_000; i++) balancer.started(of, balancer.pick(of, NONE)!);
    const active = balancer.view(of.name).map((view) => view.active);
    expect(Math.max(...active)).toBeLessThan(110);
    expect(Math.min(...active)).toBeGreaterThan(85);
  });

  test('finds the last one that is not excluded among many', () => {
    const instances = Array.from({ length: 40 }, (_, i) => instance(`i${i}`));
    const { balancer } = setup();
    for (let i = 0; i < 100; i++) {
      expect(balancer.pick(least(instances), new Set(instances.slice(1)))?.id).toBe('i0');
    }
    expect(balancer.pick(least(instances), new Set(instances))).toBeUndefined();
  });
});

describe('locality', () => {
  const local = instance('local', { node: 'here' as NodeName });
  const near = instance('near', { node: 'there' as NodeName });
  const inB = instance('in-b', { zone: 'b' });
  const inC = instance('in-c', { zone: 'c' });
  const afar = instance('afar', { zone: 'z' });
  const all = [afar, inC, inB, near, local];

  test('takes this node, then this zone, then the others in their order', () => {
    const { balancer } = setup();
    const tried = new Set<Instance>();
    const order: (string | undefined)[] = [];
    for (let i = 0; i <= all.length; i++) {
      const picked = balancer.pick(service(all), tried);
      order.push(picked?.id);
      if (picked !== undefined) tried.add(picked);
    }
    expect(order).toEqual(['local', 'near', 'in-b', 'in-c', 'afar', undefined]);
  });

  test('goes further when the near ones are ejected or draining', () => {
    const { picks, fail } = setup();
    const of = service([{ ...local, draining: true }, near, inB, inC]);
    expect(picks(of, 10)).toEqual({ near: 10 });
    fail(of, near, 3);
    expect(picks(of, 10)).toEqual({ 'in-b': 10 });
  });
});

describe('draining and exclusion', () => {
  test('a draining instance gets nothing new, not even as the last one', () => {
    const { picks } = setup();
    expect(picks(service([{ ...a, draining: true }, b]), 20)).toEqual({ b: 20 });
    expect(picks(service([{ ...a, draining: true }], { name: 'other' as ServiceName }), 1)).toEqual({
      none: 1,
    });
  });

  test('a retry gets another instance, also across a new snapshot', () => {
    const { balancer } = setup();
    const of = service([a, b]);
    const first = balancer.pick(of, NONE)!;
    const second = service([{ ...a }, { ...b }]);
    for (let i = 0; i < 10; i++) expect(balancer.pick(second, new Set([first]))?.id).not.toBe(first.id);
  });
});

describe('outlier ejection', () => {
  test('sets aside after failures in a row, tries one connection, and takes back', () => {
    const { balancer, clock, transitions, picks, fail, succeed } = setup();
    const of = service([a, b]);
    fail(of, a, 2);
    succeed(of, a);
    fail(of, a, 2);
    expect(transitions).toEqual([]);
    fail(of, a);
    expect(transitions).toEqual(['a healthy → ejected until 1000']);
    expect(picks(of, 10)).toEqual({ b: 10 });

    clock.now = 999;
    expect(picks(of, 10)).toEqual({ b: 10 });
    clock.now = 1000;
    expect(picks(of, 10)).toEqual({ a: 5, b: 5 }); // nobody took the trial up yet
    const trial = balancer.started(of, a);
    expect(picks(of, 10)).toEqual({ b: 10 }); // one trial at a time
    trial.connected();
    trial.finished();
    expect(picks(of, 10)).toEqual({ a: 5, b: 5 });
    expect(transitions.slice(1)).toEqual(['a ejected → trial', 'a trial → healthy']);
  });

  test('doubles the time with each ejection in a row, up to the longest', () => {
    const { balancer, clock, transitions, fail } = setup();
    const of = service([a, b]);
    fail(of, a, 3);
    for (let i = 0; i < 5; i++) {
      clock.now = balancer.view(of.name)[0]!.until!;
      balancer.pick(of, NONE);
      fail(of, a); // a trial has one failure
    }
    expect(transitions.filter((line) => line.includes('until'))).toEqual([
      'a healthy → ejected until 1000',
      'a trial → ejected until 3000',
      'a trial → ejected until 7000',
      'a trial → ejected until 15000',
      'a trial → ejected until 23000',
      'a trial → ejected until 31000',
    ]);
  });

  test('remembers a short recovery, and forgives after a long one', () => {
    const { balancer, clock, fail, succeed } = setup();
    const of = service([a, b]);
    const until = () => balancer.view(of.name)[0]!.until;
    const recover = () => {
      clock.now = until()!;
      balancer.pick(of, NONE);
      succeed(of, a);
    };
    fail(of, a, 3);
    recover();
    clock.now += 500;
    fail(of, a, 3);
    expect(until()).toBe(clock.now + 2000);
    recover();
    clock.now += 2000;
    fail(of, a, 3);
    expect(until()).toBe(clock.now + 1000);
  });

  test('leaves the next trial to another when the caller of one went away', () => {
    const { balancer, clock, picks, fail } = setup();
    const of = service([a, b]);
    fail(of, a, 3);
    clock.now = 1000;
    balancer.pick(of, NONE);
    const trial = balancer.started(of, a);
    expect(picks(of, 4)).toEqual({ b: 4 });
    trial.finished();
    expect(picks(of, 4)).toEqual({ a: 2, b: 2 });
  });

  test('does not count failures of connections that began before the ejection', () => {
    const { balancer, clock, transitions, fail } = setup();
    const of = service([a, b]);
    const old = Array.from({ length: 5 }, () => balancer.started(of, a));
    fail(of, a, 3);
    clock.now = 1000;
    balancer.pick(of, NONE);
    for (const token of old) token.failed();
    expect(transitions.at(-1)).toBe('a ejected → trial');
  });

  test('never sets more aside than the share allows', () => {
    const { transitions, picks, fail } = setup();
    const of = service([a, b, c, d]);
    for (const target of [a, b, c, d]) fail(of, target, 10);
    expect(transitions).toHaveLength(2);
    expect(picks(of, 10)).toEqual({ c: 5, d: 5 });
    const alone = setup();
    alone.fail(service([a]), a, 10);
    expect(alone.transitions).toEqual([]);
    const draining = setup();
    draining.fail(service([a, { ...b, draining: true }]), a, 10);
    expect(draining.transitions).toEqual([]);
  });

  test('uses everyone when all are set aside, and believes a success at once', () => {
    const { transitions, picks, fail, succeed } = setup({ maxEjectedPercent: 100 });
    const of = service([a, b]);
    fail(of, a, 3);
    fail(of, b, 3);
    expect(picks(of, 10)).toEqual({ a: 5, b: 5 });
    succeed(of, b);
    expect(transitions.at(-1)).toBe('b ejected → healthy');
    expect(picks(of, 10)).toEqual({ b: 10 });
  });

  test('counts one outcome of a connection, the first', () => {
    const { balancer, transitions } = setup({ ejectAfter: 1 });
    const of = service([a, b]);
    const token = balancer.started(of, a);
    token.connected();
    token.failed();
    token.finished();
    token.failed();
    expect(transitions).toEqual([]);
  });
});

describe('snapshots', () => {
  const withServices = (
    base: Snapshot,
    services: readonly Service[],
    removedServices: readonly ServiceName[] = [],
  ) => applyDelta(base, { base: base.version, services, removedServices, nodes: [], removedNodes: [] });

  test('keep the health of instances that stay and drop that of those that went', () => {
    const { balancer, picks, fail } = setup();
    fail(service([a, b]), a, 3);
    expect(picks(service([{ ...a }, b, c]), 10)).toEqual({ b: 5, c: 5 });
    expect(picks(service([b, c]), 10)).toEqual({ b: 5, c: 5 });
    expect(picks(service([a, b, c]), 9)).toEqual({ a: 3, b: 3, c: 3 });
    expect(balancer.view('web' as ServiceName)).toHaveLength(3);
  });

  test('decide over older services: what is deregistered gets nothing new', () => {
    const { balancer } = setup();
    const old = service([a, b]);
    balancer.use(withServices(emptySnapshot, [old]));
    balancer.use(withServices(emptySnapshot, [service([b])]));
    for (let i = 0; i < 5; i++) expect(balancer.pick(old, NONE)?.id).toBe('b');
    const token = balancer.started(old, a);
    token.failed();
    token.finished();
    balancer.use(emptySnapshot);
    expect(balancer.pick(old, NONE)).toBeUndefined();
  });

  test('forget services that are gone, all of them in time', () => {
    const { balancer } = setup();
    const services = Array.from({ length: 500 }, (_, i) => service([a], { name: `s${i}` as ServiceName }));
    const full = withServices(emptySnapshot, services);
    balancer.use(full);
    for (const of of services) balancer.pick(of, NONE);
    const kept = withServices(
      full,
      [],
      services.slice(1).map(({ name }) => name),
    );
    for (let i = 0; i < 20; i++) balancer.use(kept);
    expect(services.filter(({ name }) => balancer.view(name).length > 0)).toEqual([services[0]]);
  });

  test('follow a new configuration', () => {
    const { balancer } = setup();
    const of = service([instance('x', { zone: 'b' }), instance('y', { zone: 'c' })]);
    expect(balancer.pick(of, NONE)?.id).toBe('x');
    balancer.configure({ locality: { ...locality, zone: 'c' }, ejection });
    expect(balancer.pick(of, NONE)?.id).toBe('y');
  });
});

test('whatever happens, a usable instance is picked while one is registered, and counts return to zero', () => {
  const ids = ['a', 'b', 'c', 'd', 'e'];
  const step = fc.record({
    action: fc.constantFrom('pick', 'connected', 'failed', 'finished', 'wait', 'replace'),
    at: fc.nat(20),
  });
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 200 }),
      fc.constantFrom(0, 50, 100),
      (steps, maxEjectedPercent) => {
        const { balancer, clock } = setup({ maxEjectedPercent, ejectAfter: 2 });
        let current = service(ids.map((id) => instance(id)));
        const live: PickToken[] = [];
        for (const { action, at } of steps) {
          if (action === 'wait') clock.now += at * 300;
          else if (action === 'replace') {
            current = service(ids.slice(at % 5).map((id, i) => instance(id, { draining: i > at % 3 })));
          } else if (action === 'pick') {
            const picked = balancer.pick(current, NONE);
            expect(picked).toBeDefined();
            expect(picked?.draining).toBe(false);
            live.push(balancer.started(current, picked!));
          } else live[at % Math.max(1, live.length)]?.[action]();
        }
        for (const token of live) token.finished();
        for (const { active } of balancer.view(current.name)) expect(active).toBe(0);
      },
    ),
    { numRuns: 500 },
  );
});
