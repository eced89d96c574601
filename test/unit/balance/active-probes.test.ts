import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ActiveProbes } from '../../../src/balance/active-probes.ts';
import type { ProbeOutcome } from '../../../src/balance/outages.ts';
import type { ActiveProbe } from '../../../src/model/policy.ts';
import type { Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot } from '../../../src/model/snapshot.ts';
import { instance, instances, service } from './samples.ts';

const probe: ActiveProbe = { interval: 1000, timeout: 500, rise: 2, fall: 3 };

function snapshotOf(...services: Service[]): Snapshot {
  return applyDelta(emptySnapshot, { base: 0, services, removedServices: [], nodes: [], removedNodes: [] });
}

function setup(random = () => 0.5) {
  const said: { policy: ActiveProbe | undefined } = { policy: probe };
  const asked: string[] = [];
  const open: ((outcome: ProbeOutcome) => void)[] = [];
  const reports: string[] = [];
  const released: string[] = [];
  /** What instances answer at once; absent: the test answers. */
  const answers = new Map<string, ProbeOutcome>();
  const probes = new ActiveProbes({
    policy: () => said.policy,
    ask: (_service, { id }, _probe, done) => {
      asked.push(id);
      const outcome = answers.get(id);
      if (outcome === undefined) open.push(done);
      else queueMicrotask(() => done(outcome));
    },
    report: (_service, id, healthy) => reports.push(`${id} ${healthy ? 'up' : 'down'}`),
    release: (name) => released.push(name),
    now: () => Date.now(),
    random,
  });
  return { probes, said, asked, open, reports, released, answers };
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

describe('ActiveProbes', () => {
  it('asks each instance again and again, from a random moment on, and shortens intervals by chance', async () => {
    const chances = [0.2, 0.7, 1, 1];
    const { probes, asked, answers } = setup(() => chances.shift() ?? 0);
    answers.set('i0', 'reached').set('i1', 'reached');
    probes.inUse(service(instances(2)));
    await vi.advanceTimersByTimeAsync(199);
    expect(asked).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(asked).toEqual(['i0']);
    await vi.advanceTimersByTimeAsync(500);
    expect(asked).toEqual(['i0', 'i1']);
    await vi.advanceTimersByTimeAsync(300); // 200 + 0.8 · 1000
    expect(asked).toEqual(['i0', 'i1', 'i0']);
  });

  it('reports after so many in a row', async () => {
    const { probes, reports, answers } = setup(() => 0);
    answers.set('i0', 'reached');
    probes.inUse(service(instances(1)));
    await vi.advanceTimersByTimeAsync(0);
    expect(reports).toEqual([]);
    await vi.advanceTimersByTimeAsync(1000);
    expect(reports).toEqual(['i0 up']);
    await vi.advanceTimersByTimeAsync(5000);
    expect(reports).toEqual(['i0 up']);
    answers.set('i0', 'unreached');
    await vi.advanceTimersByTimeAsync(2000);
    answers.set('i0', 'reached');
    await vi.advanceTimersByTimeAsync(1000);
    answers.set('i0', 'unreached');
    await vi.advanceTimersByTimeAsync(2000);
    expect(reports).toEqual(['i0 up']);
    await vi.advanceTimersByTimeAsync(1000);
    expect(reports).toEqual(['i0 up', 'i0 down']);
    answers.set('i0', 'reached');
    await vi.advanceTimersByTimeAsync(2000);
    expect(reports).toEqual(['i0 up', 'i0 down', 'i0 up']);
  });

  it('hears nothing in what is unknown', async () => {
    const { probes, reports, answers } = setup(() => 0);
    answers.set('i0', 'unreached');
    probes.inUse(service(instances(1)));
    await vi.advanceTimersByTimeAsync(1000);
    answers.set('i0', 'unknown');
    await vi.advanceTimersByTimeAsync(5000);
    expect(reports).toEqual([]);
    answers.set('i0', 'unreached');
    await vi.advanceTimersByTimeAsync(1000);
    expect(reports).toEqual(['i0 down']);
  });

  it('asks nobody twice at once', async () => {
    const { probes, asked, open } = setup(() => 0);
    probes.inUse(service(instances(1)));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(asked).toHaveLength(1);
    open[0]!('reached');
    await vi.advanceTimersByTimeAsync(1000);
    expect(asked).toHaveLength(2);
  });

  it('has a bounded number out, and the others wait for their turn', async () => {
    const { probes, asked, open } = setup(() => 0);
    probes.inUse(service(instances(40)));
    await vi.advanceTimersByTimeAsync(0);
    expect(asked).toHaveLength(32);
    open[0]!('reached');
    await vi.advanceTimersByTimeAsync(0);
    expect(asked).toHaveLength(33);
    expect(asked.at(-1)).toBe('i32');
  });

  it('follows the catalogue: new ones are asked, those that left or drain are not', async () => {
    const { probes, asked, answers, open, reports } = setup(() => 0);
    for (const id of ['i0', 'i1', 'new']) answers.set(id, 'reached');
    probes.inUse(service(instances(2)));
    probes.use(snapshotOf(service([instance('i0'), instance('i1', { draining: true }), instance('new')])));
    await vi.advanceTimersByTimeAsync(0);
    expect(asked).toEqual(['i0', 'new']);
    // An answer that comes after its instance left says nothing.
    answers.clear();
    await vi.advanceTimersByTimeAsync(1000);
    expect(open).toHaveLength(2);
    probes.use(snapshotOf());
    for (const answer of open) answer('reached');
    await vi.advanceTimersByTimeAsync(5000);
    expect(reports).toEqual([]);
    expect(asked).toHaveLength(4);
  });

  it('gives up services that nobody calls, and begins again with the next call', async () => {
    const { probes, asked, answers, released } = setup(() => 0);
    answers.set('i0', 'reached');
    probes.inUse(service(instances(1)));
    await vi.advanceTimersByTimeAsync(200_000);
    probes.inUse(service(instances(1)));
    await vi.advanceTimersByTimeAsync(299_000);
    expect(released).toEqual([]);
    await vi.advanceTimersByTimeAsync(3000);
    expect(released).toEqual(['web']);
    const before = asked.length;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(asked).toHaveLength(before);
    probes.inUse(service(instances(1)));
    await vi.advanceTimersByTimeAsync(0);
    expect(asked).toHaveLength(before + 1);
  });

  it('follows its policy: a changed one begins anew, without one nothing is asked', async () => {
    const { probes, said, asked, answers, released, reports } = setup(() => 0);
    answers.set('i0', 'unreached');
    probes.inUse(service(instances(1)));
    await vi.advanceTimersByTimeAsync(1000);
    probes.usePolicies();
    said.policy = { ...probe, interval: 100 };
    probes.usePolicies();
    await vi.advanceTimersByTimeAsync(100);
    expect(reports).toEqual([]);
    await vi.advanceTimersByTimeAsync(100);
    expect(reports).toEqual(['i0 down']);
    said.policy = undefined;
    probes.usePolicies();
    expect(released).toEqual(['web']);
    const before = asked.length;
    probes.inUse(service(instances(1)));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(asked).toHaveLength(before);
  });

  it('has a bounded number of services', async () => {
    const { probes, asked, answers } = setup(() => 0);
    answers.set('i0', 'reached');
    for (let i = 0; i < 300; i++) probes.inUse(service(instances(1), { name: `s${i}` as ServiceName }));
    await vi.advanceTimersByTimeAsync(10);
    expect(asked).toHaveLength(256);
  });

  it('stops', async () => {
    const { probes, asked, released } = setup(() => 0.5);
    probes.inUse(service(instances(40)));
    probes.stop();
    probes.inUse(service(instances(40)));
    await vi.advanceTimersByTimeAsync(10_000);
    expect([asked, released]).toEqual([[], []]);
    expect(vi.getTimerCount()).toBe(0);
  });
});
