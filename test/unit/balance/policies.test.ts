import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PickToken } from '../../../src/balance/balancer.ts';
import { type ActiveProbe, balanceAlgorithms, type ServicePolicy } from '../../../src/model/policy.ts';
import type { Instance, NodeName } from '../../../src/model/service.ts';
import { balance, finish, instance, instances, NONE, outlier, service, setup } from './samples.ts';

const probe: ActiveProbe = { interval: 1000, timeout: 500, rise: 2, fall: 3 };

describe('answers as failures, where a policy says so', () => {
  const [a, b, c] = instances(3) as [Instance, Instance, Instance];
  const of = service([a, b, c]);

  it('counts those in a row: 5xx and none at all', () => {
    const { ask, transitions, view } = setup({ outlier: outlier() });
    ask(of, a, 500);
    ask(of, a, 0);
    ask(of, a, 404);
    ask(of, a, 503);
    ask(of, a, 502);
    expect(view(of, 'i0')?.failures).toBe(2);
    expect(transitions).toEqual([]);
    ask(of, a, 0);
    expect(transitions).toEqual(['i0 healthy → ejected: consecutive']);
    expect(view(of, 'i0')).toMatchObject({ state: 'ejected', reason: 'consecutive', until: 1000 });
  });

  it('does not take a connection for an answer', () => {
    const { connect, ask, transitions } = setup({ outlier: outlier() });
    for (let i = 0; i < 3; i++) {
      connect(of, a, true);
      ask(of, a, 500);
    }
    expect(transitions).toEqual(['i0 healthy → ejected: consecutive']);
  });

  it('counts connections that fail with answers that do', () => {
    const { connect, ask, transitions, view } = setup({ outlier: outlier() });
    connect(of, a, false);
    ask(of, a, 500);
    connect(of, a, true); // takes back that it cannot be reached, and no more
    expect(view(of, 'i0')?.failures).toBe(1);
    ask(of, a, 500);
    connect(of, a, false);
    expect(transitions).toHaveLength(1);
  });

  it('changes nothing without one', () => {
    const { ask, transitions, view } = setup();
    for (let i = 0; i < 20; i++) ask(of, a, i % 2 === 0 ? 500 : 0);
    expect(transitions).toEqual([]);
    expect(view(of, 'i0')?.failures).toBe(0);
  });

  it('comes back by an answer, tried by one request', () => {
    const { ask, balancer, clock, picks, transitions } = setup({ outlier: outlier() });
    for (let i = 0; i < 3; i++) ask(of, a, 500);
    clock.now = 1000;
    expect(picks(of, 30)['i0']).toBe(10);
    const trial = balancer.started(of, a);
    expect(picks(of, 30)['i0']).toBeUndefined();
    trial.connected();
    expect(transitions.at(-1)).toBe('i0 ejected → trial: consecutive');
    expect(picks(of, 30)['i0']).toBeUndefined();
    trial.answered(200, 5);
    trial.finished();
    expect(transitions.at(-1)).toBe('i0 trial → healthy: consecutive');
    expect(picks(of, 30)['i0']).toBe(10);
  });

  it('is out for longer each time, evenly, up to the longest', () => {
    const { ask, clock, picks, view } = setup({ outlier: outlier() });
    for (let i = 0; i < 3; i++) ask(of, a, 500);
    const times: number[] = [];
    for (let i = 0; i < 4; i++) {
      const { until } = view(of, 'i0')!;
      times.push(until! - clock.now);
      clock.now = until!;
      picks(of, 1);
      ask(of, a, 500);
    }
    expect(times).toEqual([1000, 2000, 2500, 2500]);
  });

  it('an answer to what was asked before the ejection does not end it', () => {
    const { ask, balancer, clock, picks, transitions } = setup({ outlier: outlier() });
    const before = balancer.started(of, a);
    for (let i = 0; i < 3; i++) ask(of, a, 500);
    clock.now = 1000;
    picks(of, 1);
    before.answered(200, 1000);
    before.finished();
    expect(transitions.at(-1)).toBe('i0 ejected → trial: consecutive');
  });
});

describe('comparison', () => {
  const all = instances(6);
  const of = service(all);
  const rates = { minimumInstances: 5, minimumRequests: 10, factor: 1.9 };
  const delays = { minimumInstances: 3, minimumRequests: 10, factor: 3, atLeast: 50 };

  it('sets aside who fails more often than the others, when the interval is over', () => {
    const { ask, clock, picks, transitions, view } = setup({
      outlier: outlier({ consecutiveErrors: 1000, successRate: rates }),
    });
    for (const [i, target] of all.entries()) {
      for (let k = 0; k < 20; k++) ask(of, target, i === 2 && k % 2 === 0 ? 500 : 200);
    }
    clock.now = 9999;
    picks(of, 1);
    expect(transitions).toEqual([]);
    clock.now = 10_000;
    expect(picks(of, 50)['i2']).toBeUndefined();
    expect(transitions).toEqual(['i2 healthy → ejected: success-rate']);
    expect(view(of, 'i2')).toMatchObject({ reason: 'success-rate', until: 11_000 });
  });

  it('begins anew with each interval', () => {
    const { ask, clock, picks, transitions } = setup({
      outlier: outlier({ consecutiveErrors: 1000, successRate: rates }),
    });
    // Enough requests in two intervals, too few in each.
    for (const now of [0, 10_000]) {
      clock.now = now;
      picks(of, 1);
      for (const [i, target] of all.entries())
        for (let k = 0; k < 6; k++) ask(of, target, i === 2 ? 500 : 200);
    }
    clock.now = 20_000;
    picks(of, 1);
    expect(transitions).toEqual([]);
  });

  it('sets aside who is much slower than the others', () => {
    const { ask, clock, picks, transitions } = setup({ outlier: outlier({ latency: delays }) });
    for (const [i, target] of all.entries()) {
      for (let k = 0; k < 20; k++) ask(of, target, 200, i === 4 ? 400 : 20);
    }
    clock.now = 10_000;
    expect(picks(of, 50)['i4']).toBeUndefined();
    expect(transitions).toEqual(['i4 healthy → ejected: latency']);
  });

  it('never sets aside more than may be, and begins with the worst', () => {
    const { ask, clock, picks, transitions } = setup({
      outlier: outlier({ maxEjectedPercent: 20, latency: delays }),
    });
    for (const [i, target] of all.entries()) {
      for (let k = 0; k < 20; k++) ask(of, target, 200, i < 2 ? 400 + i * 100 : 20);
    }
    clock.now = 10_000;
    picks(of, 1);
    expect(transitions).toEqual(['i1 healthy → ejected: latency']);
  });
});

describe('how many may be out', () => {
  it('one always may, while there is another', () => {
    const of = service(instances(4));
    const few = setup({ outlier: outlier({ maxEjectedPercent: 1 }) });
    for (const target of of.instances) for (let i = 0; i < 5; i++) few.ask(of, target, 500);
    expect(few.transitions).toHaveLength(1);
    const alone = setup({ outlier: outlier() });
    const one = service(instances(1));
    for (let i = 0; i < 5; i++) alone.ask(one, one.instances[0]!, 500);
    expect(alone.transitions).toEqual([]);
    const none = setup({ outlier: outlier({ maxEjectedPercent: 0 }) });
    for (let i = 0; i < 5; i++) none.ask(of, of.instances[0]!, 500);
    expect(none.transitions).toEqual([]);
  });

  it('below the panic threshold all are used', () => {
    const of = service(instances(4));
    const { ask, picks } = setup({ outlier: outlier({ maxEjectedPercent: 100, panicThreshold: 50 }) });
    const eject = (at: number) => {
      for (let i = 0; i < 3; i++) ask(of, of.instances[at]!, 500);
    };
    eject(0);
    eject(1);
    expect(picks(of, 40)).toEqual({ i2: 20, i3: 20 });
    eject(2);
    expect(picks(of, 40)).toEqual({ i0: 10, i1: 10, i2: 10, i3: 10 });
  });
});

describe('subsets', () => {
  const of = service([
    instance('a', { labels: { version: '1', track: 'stable' } }),
    instance('b', { labels: { version: '2', track: 'canary' } }),
    instance('c', { labels: { version: '2', track: 'stable' } }),
  ]);

  it('are those instances that carry all of the labels', () => {
    const { picks, balancer } = setup();
    expect(picks(of, 10, { version: '2' })).toEqual({ b: 5, c: 5 });
    expect(picks(of, 10, { version: '2', track: 'stable' })).toEqual({ c: 10 });
    expect(picks(of, 9, {})).toEqual({ a: 3, b: 3, c: 3 });
    expect(balancer.pick(of, NONE, { subset: { version: '3' } })).toBeUndefined();
    expect(
      balancer.pick(of, new Set([of.instances[2]!]), { subset: { version: '2', track: 'stable' } }),
    ).toBe(undefined);
  });

  it('follow the health and the presence of their instances', () => {
    const { balancer, connect, picks } = setup();
    const subset = { version: '2' };
    for (let i = 0; i < 3; i++) connect(of, of.instances[1]!, false);
    expect(picks(of, 10, subset)).toEqual({ c: 10 });
    const later = service(of.instances.slice(0, 2));
    // The only one that is left is used, ejected or not.
    expect(balancer.pick(later, NONE, { subset })?.id).toBe('b');
  });

  it('are kept for a bounded number', () => {
    const { picks } = setup();
    for (let i = 0; i < 500; i++) expect(picks(of, 1, { version: '1' })).toEqual({ a: 1 });
  });
});

describe('slow start', () => {
  const policy: ServicePolicy = { balance: balance({ algorithm: 'least-requests', slowStart: 10_000 }) };

  it('lets the share of a new instance grow, and not of those that were there from the beginning', () => {
    const { clock, picks, view } = setup(policy);
    const old = instances(4);
    expect(chance(picks(service(old), 4000), 'i0')).toBeCloseTo(1 / 4, 1);
    clock.now = 100_000;
    const of = service([...old, instance('new')]);
    picks(of, 1);
    const shares: number[] = [];
    for (const age of [100, 2500, 5000, 7500, 10_000]) {
      clock.now = 100_000 + age;
      shares.push(chance(picks(of, 20_000), 'new'));
      if (age === 2500) expect(view(of, 'new')?.share).toBe(0.25);
    }
    // s of one weight among 4 + s.
    for (const [i, share] of [0.05, 0.25, 0.5, 0.75, 1].entries()) {
      expect(Math.abs(shares[i]! - share / (4 + share))).toBeLessThan(0.015);
    }
    expect(view(of, 'i0')?.share).toBe(1);
  });

  it('begins again for one that is back from an ejection', () => {
    const { connect, clock, picks, view } = setup(policy);
    const of = service(instances(3));
    for (let i = 0; i < 3; i++) connect(of, of.instances[0]!, false);
    clock.now = 1000;
    picks(of, 1);
    connect(of, of.instances[0]!, true);
    expect(view(of, 'i0')).toMatchObject({ state: 'healthy', share: 0.05 });
    expect(chance(picks(of, 4000), 'i0')).toBeLessThan(0.04);
    clock.now = 11_000;
    expect(chance(picks(of, 4000), 'i0')).toBeCloseTo(1 / 3, 1);
  });
});

function chance(counts: Record<string, number>, id: string): number {
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
  return (counts[id] ?? 0) / all;
}

describe('overflow', () => {
  const near = instances(4, { zone: 'a' });
  const far = Array.from({ length: 4 }, (_, i) => instance(`far${i}`, { zone: 'b' }));
  const of = service([...near, ...far]);

  it('grows with what is missing near', () => {
    const { connect, picks } = setup({ balance: balance({ overflowBelow: 100 }) });
    expect(Object.keys(picks(of, 100)).sort()).toEqual(['i0', 'i1', 'i2', 'i3']);
    for (let i = 0; i < 3; i++) connect(of, near[0]!, false);
    const counts = picks(of, 8000);
    const over = far.reduce((sum, { id }) => sum + (counts[id] ?? 0), 0) / 8000;
    expect(over).toBeCloseTo(0.25, 1);
    expect(counts['i0']).toBeUndefined();
  });

  it('keeps all near where enough of them are usable', () => {
    const { connect, picks } = setup({ balance: balance({ overflowBelow: 70 }) });
    for (let i = 0; i < 3; i++) connect(of, near[0]!, false);
    expect(Object.keys(picks(of, 300)).sort()).toEqual(['i1', 'i2', 'i3']);
  });

  it('joins further ones where there are too few near', () => {
    const here = instance('here', { node: 'here' as NodeName });
    const { picks } = setup({ balance: balance({ minimumNear: 2 }) });
    const counts = picks(service([here, ...near]), 4000);
    expect(chance(counts, 'here')).toBeCloseTo(0.5, 1);
  });

  it('brings a key to the same ring every time', () => {
    const { balancer } = setup({ balance: balance({ algorithm: 'ring-hash', overflowBelow: 100 }) });
    const half = service([near[0]!, { ...near[1]!, draining: true }, ...far]);
    for (let i = 0; i < 50; i++) {
      const key = `k${i}`;
      const first = balancer.pick(half, NONE, { key });
      for (let k = 0; k < 5; k++) expect(balancer.pick(half, NONE, { key })).toBe(first);
    }
  });
});

it('under ring hash all hosts of a zone choose the same instance for a key', () => {
  const all = [instance('here', { node: 'here' as NodeName }), ...instances(5)];
  const elsewhere = all.map((one) => (one.node === undefined ? one : { ...one, node: 'other' as NodeName }));
  const policy: ServicePolicy = { balance: balance({ algorithm: 'ring-hash' }) };
  const one = setup(policy).balancer;
  const other = setup(policy).balancer;
  for (let i = 0; i < 100; i++) {
    const key = `k${i}`;
    expect(one.pick(service(all), NONE, { key })?.id).toBe(other.pick(service(elsewhere), NONE, { key })?.id);
  }
});

describe('peak EWMA', () => {
  it('measures answers; and connections, where nothing is answered', () => {
    const policy: ServicePolicy = { balance: balance({ algorithm: 'peak-ewma' }) };
    const http = setup(policy);
    const of = service(instances(2));
    http.connect(of, of.instances[0]!, true);
    expect(http.view(of, 'i0')?.latencyMs).toBeUndefined();
    http.ask(of, of.instances[0]!, 200, 42);
    expect(http.view(of, 'i0')?.latencyMs).toBe(42);
    const opaque = setup(policy);
    const tcp = service(instances(2), { protocol: 'tcp' });
    const token = opaque.balancer.started(tcp, tcp.instances[0]!);
    opaque.clock.now = 7;
    token.connected();
    expect(opaque.view(tcp, 'i0')?.latencyMs).toBe(7);
  });

  it('forgets delays of connections with the first answer', () => {
    const { ask, connect, view } = setup({ balance: balance({ algorithm: 'peak-ewma' }) });
    const of = service(instances(2), { protocol: 'auto' });
    connect(of, of.instances[0]!, true);
    connect(of, of.instances[1]!, true);
    ask(of, of.instances[0]!, 200, 20);
    expect(view(of, 'i0')?.latencyMs).toBe(20);
    expect(view(of, 'i1')?.latencyMs).toBeUndefined();
  });

  it.each([500, 429, 0])('gives one that answers %d at once no load', (status) => {
    const { ask, picks } = setup({ balance: balance({ algorithm: 'peak-ewma' }) });
    const of = service(instances(5));
    for (const target of of.instances) ask(of, target, 200, 10);
    for (let i = 0; i < 3; i++) ask(of, of.instances[2]!, status, 0.1);
    expect(picks(of, 500)['i2']).toBeUndefined();
  });
});

describe('probes', () => {
  it('are told now and then that a service is in use', () => {
    const { picks, clock, used, said } = setup({ probe });
    const of = service(instances(2));
    picks(of, 10);
    clock.now = 999;
    picks(of, 10);
    expect(used).toEqual(['web']);
    clock.now = 1000;
    picks(of, 10);
    expect(used).toHaveLength(2);
    said.policy = {};
    clock.now = 5000;
    picks(service(instances(2)), 1);
    expect(used).toHaveLength(2);
  });

  it('set aside until they say otherwise, whatever callers see', () => {
    const { balancer, connect, clock, picks, transitions, view } = setup({ probe });
    const of = service(instances(2));
    const [a] = of.instances as [Instance];
    picks(of, 1);
    balancer.probed(of.name, a.id, false);
    expect(transitions).toEqual(['i0 healthy → ejected: probe']);
    expect(view(of, 'i0')).toMatchObject({ state: 'ejected', reason: 'probe', until: undefined });
    clock.now = 1e9;
    connect(of, a, true);
    expect(picks(of, 10)).toEqual({ i1: 10 });
    balancer.probed(of.name, a.id, true);
    balancer.probed(of.name, a.id, true);
    expect(transitions.slice(1)).toEqual(['i0 ejected → healthy: probe']);
    expect(picks(of, 10)).toEqual({ i0: 5, i1: 5 });
  });

  it('hold one that was set aside already', () => {
    const { balancer, connect, clock, picks, transitions } = setup({ probe });
    const of = service(instances(2));
    const [a] = of.instances as [Instance];
    for (let i = 0; i < 3; i++) connect(of, a, false);
    balancer.probed(of.name, a.id, false);
    clock.now = 1e6;
    expect(picks(of, 10)).toEqual({ i1: 10 });
    balancer.probed(of.name, a.id, true);
    expect(transitions).toEqual(['i0 healthy → ejected: consecutive', 'i0 ejected → healthy: probe']);
  });

  it('leave their word to a trial when nobody probes any more', () => {
    const { balancer, picks, said, transitions } = setup({ probe });
    const of = service(instances(2));
    picks(of, 1);
    balancer.probed(of.name, of.instances[0]!.id, false);
    said.policy = {};
    balancer.usePolicies();
    expect(picks(of, 10)).toEqual({ i0: 5, i1: 5 });
    expect(transitions.at(-1)).toBe('i0 ejected → trial: probe');
    // A late word of theirs is not heard.
    balancer.probed(of.name, of.instances[1]!.id, false);
    expect(transitions).toHaveLength(2);
  });
});

it('follows a registry that says otherwise how to balance', () => {
  const { balancer } = setup();
  const of = service(instances(3), { balance: 'least-connections' });
  const first = balancer.pick(of, NONE)!;
  balancer.started(of, first);
  for (let i = 0; i < 20; i++) expect(balancer.pick(of, NONE)).not.toBe(first);
  const turned = service(of.instances);
  expect(new Set(Array.from({ length: 20 }, () => balancer.pick(turned, NONE)?.id)).size).toBe(3);
});

it('tells of instances that leave while they are set aside', () => {
  const { connect, forgotten, picks } = setup();
  const of = service(instances(3));
  for (let i = 0; i < 3; i++) connect(of, of.instances[0]!, false);
  picks(service(of.instances.slice(1)), 1);
  expect(forgotten).toEqual(['i0']);
});

it('takes a new policy at once, and keeps what is known', () => {
  const { ask, balancer, picks, said, transitions } = setup({ outlier: outlier() });
  const of = service(instances(3));
  ask(of, of.instances[0]!, 500);
  ask(of, of.instances[0]!, 500);
  said.policy = { outlier: outlier({ consecutiveErrors: 10 }) };
  balancer.usePolicies();
  ask(of, of.instances[0]!, 500);
  expect(transitions).toEqual([]);
  said.policy = { outlier: outlier({ consecutiveErrors: 4 }), balance: balance({ algorithm: 'ring-hash' }) };
  balancer.usePolicies();
  ask(of, of.instances[0]!, 500);
  expect(transitions).toEqual(['i0 healthy → ejected: consecutive']);
  const key = 'same';
  const [first] = Object.keys(picks(of, 1));
  expect(first).not.toBe('i0');
  expect(new Set(Array.from({ length: 20 }, () => balancer.pick(of, NONE, { key }))).size).toBe(1);
});

const step = fc.record({
  action: fc.constantFrom(
    'pick',
    'connected',
    'failed',
    'good',
    'bad',
    'none',
    'finished',
    'wait',
    'replace',
    'probe',
  ),
  at: fc.nat(40),
});

it('whatever happens: a usable instance of the subset while there is one, none that drains, and counts return to zero', () => {
  const subsets = [undefined, { v: '1' }, { v: '2' }, { v: '9' }] as const;
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 200 }),
      fc.constantFrom(...balanceAlgorithms),
      fc.constantFrom(0, 50, 100),
      fc.boolean(),
      (steps, algorithm, percent, slow) => {
        const { balancer, clock } = setup({
          probe,
          balance: balance({ algorithm, slowStart: slow ? 5000 : 0, overflowBelow: percent, minimumNear: 2 }),
          outlier: outlier({
            consecutiveErrors: 2,
            maxEjectedPercent: 100,
            panicThreshold: percent,
            successRate: { minimumInstances: 2, minimumRequests: 1, factor: 0.5 },
            latency: { minimumInstances: 2, minimumRequests: 1, factor: 2, atLeast: 0 },
          }),
        });
        const make = (from: number, drained: number) =>
          service(
            Array.from({ length: 7 - from }, (_, i) =>
              instance(`i${i + from}`, {
                draining: i > drained,
                labels: { v: i % 2 === 0 ? '1' : '2' },
                zone: i < 3 ? 'a' : 'b',
                weight: 50 + i,
              }),
            ),
          );
        let current = make(0, 9);
        const live: PickToken[] = [];
        for (const { action, at } of steps) {
          const token = live[at % Math.max(1, live.length)];
          if (action === 'wait') clock.now += at * 300;
          else if (action === 'replace') current = make(at % 6, at % 5);
          else if (action === 'probe') {
            balancer.probed(current.name, current.instances[at % current.instances.length]!.id, at % 3 === 0);
          } else if (action === 'pick') {
            const subset = subsets[at % 4];
            const choice = {
              ...(subset === undefined ? {} : { subset }),
              ...(at % 2 === 0 ? { key: `${at}` } : {}),
            };
            const allowed = current.instances.filter(
              ({ labels, draining }) => !draining && (subset === undefined || labels['v'] === subset.v),
            );
            const picked = balancer.pick(current, NONE, choice);
            if (allowed.length === 0) expect(picked).toBeUndefined();
            else {
              expect(allowed).toContain(picked);
              const states = new Map(balancer.view(current.name).map((one) => [one.id, one.state]));
              const healthy = allowed.filter(({ id }) => states.get(id) === 'healthy').length;
              // Apart from panic nobody is picked who is set aside while another one is well.
              if (percent === 0 && healthy > 0) expect(states.get(picked!.id)).not.toBe('ejected');
              live.push(balancer.started(current, picked!));
            }
          } else if (action === 'good') token?.answered(200, at);
          else if (action === 'bad') token?.answered(503, at);
          else if (action === 'none') token?.answered(0, at);
          else token?.[action]();
          const views = balancer.view(current.name);
          expect(views.every(({ active, share }) => active >= 0 && share > 0 && share <= 1)).toBe(true);
        }
        finish(live);
        finish(live);
        for (const { active } of balancer.view(current.name)) expect(active).toBe(0);
      },
    ),
    { numRuns: 300 },
  );
});
