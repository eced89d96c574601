import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { loadConfig } from '../../../src/config/load.ts';
import { Guard } from '../../../src/daemon/guard/guard.ts';
import { GuardDriver } from '../../../src/daemon/guard/guard-driver.ts';
import { type Finding, GuardWindow } from '../../../src/daemon/guard/guard-window.ts';
import {
  areVitals,
  descriptorShortage,
  isOwnFault,
  VitalCounts,
  VitalSigns,
  type Vitals,
} from '../../../src/daemon/guard/vitals.ts';
import { Counters } from '../../../src/telemetry/counters.ts';
import { createLog } from '../../../src/telemetry/log.ts';
import { sampleRecord } from '../telemetry/sample-record.ts';

const { guard: limits } = loadConfig({ text: '' });
const finding: Finding = { measure: 'delay', detail: 'late' };

describe('Guard', () => {
  /** The states that it passes through when it is told these findings, one a second. */
  function run(guard: Guard, found: readonly (Finding | undefined)[], from = 0): string[] {
    return found.flatMap((one, second) => {
      const step = guard.next(one, (from + second) * 1000);
      return step === undefined ? [] : [`${from + second}s ${step.from} → ${step.to} ${step.pauseMs}`];
    });
  }
  const calm = (seconds: number) => new Array<undefined>(seconds).fill(undefined);

  it('is out at once, and back after a time without a reason', () => {
    const guard = new Guard(limits);
    expect(guard.state).toBe('in');
    expect(run(guard, [undefined, finding, ...calm(12)])).toEqual([
      '1s in → out 10000',
      '11s out → in 10000',
    ]);
    expect(guard.finding).toBeUndefined();
  });

  it('counts the time without a reason anew with each reason, and tells the newest', () => {
    const guard = new Guard(limits);
    expect(run(guard, [finding, ...calm(8), { measure: 'errors', detail: 'many' }, ...calm(9)])).toEqual([
      '0s in → out 10000',
    ]);
    expect(guard.finding?.measure).toBe('errors');
    expect(run(guard, calm(1), 19)).toEqual(['19s out → in 10000']);
  });

  it('stays out longer each time that it came back too early, up to a bound, and forgets that in the end', () => {
    const guard = new Guard({ returnAfter: 10_000, returnMax: 30_000 });
    const steps: string[] = [];
    let at = 0;
    for (let i = 0; i < 4; i++) {
      steps.push(...run(guard, [finding], at));
      at += 1;
      while (guard.state === 'out') steps.push(...run(guard, calm(1), at++));
    }
    expect(steps.map((step) => step.replace(/^\d+s /, ''))).toEqual(
      [10_000, 20_000, 30_000, 30_000].flatMap((ms) => [`in → out ${ms}`, `out → in ${ms}`]),
    );
    expect(run(guard, calm(60), at)).toEqual([]);
    expect(run(guard, [finding], at + 60)).toEqual([`${at + 60}s in → out 10000`]);
  });

  it('asks for figures well below the bounds before it comes back', () => {
    const guard = new Guard(limits);
    expect(guard.share).toBe(1);
    guard.next(finding, 0);
    expect(guard.share).toBeLessThan(1);
  });
});

describe('GuardWindow', () => {
  const vitals = (at: number, over: Partial<Vitals> = {}): Vitals => ({
    at,
    delayMs: 2,
    descriptors: 100,
    descriptorLimit: 1000,
    taken: 0,
    failed: 0,
    ...over,
  });
  const windowOf = (...samples: readonly Vitals[]): GuardWindow => {
    const window = new GuardWindow(limits);
    for (const sample of samples) window.measured('worker-0', sample);
    return window;
  };

  it('finds nothing where nothing is wrong, or nothing was measured', () => {
    expect(windowOf().judge(0, 1)).toBeUndefined();
    expect(windowOf(vitals(0), vitals(200)).judge(200, 1)).toBeUndefined();
  });

  it.each([
    ['one pause, however long', [1900], false],
    ['two pauses of less than half the window', [700, 700], false],
    ['two pauses of half the window', [750, 800], true],
    ['again and again', [510, 510, 510], true],
    ['many that are within the bound', [490, 490, 490, 490, 490], false],
  ])('delay: %s', (_, delays, wrong) => {
    const window = windowOf(...delays.map((delayMs, i) => vitals(1000 + i, { delayMs })));
    expect(window.judge(2000, 1)?.measure).toBe(wrong ? 'delay' : undefined);
    expect(window.judge(2000 + limits.window, 1), 'all of that is past').toBeUndefined();
  });

  it('delay: of one worker; what others are late by is not added', () => {
    const window = windowOf(vitals(1000, { delayMs: 900 }));
    window.measured('worker-1', vitals(1000, { delayMs: 900 }));
    expect(window.judge(1000, 1)).toBeUndefined();
    window.measured('worker-1', vitals(1900, { delayMs: 900 }));
    expect(window.judge(1900, 1)?.detail).toContain('worker-1');
    window.gone('worker-1');
    expect(window.judge(1900, 1)).toBeUndefined();
  });

  it('descriptors: two readings in a row; well below the bound to be calm', () => {
    const window = windowOf(vitals(0, { descriptors: 950 }));
    expect(window.judge(0, 1)).toBeUndefined();
    window.measured('worker-0', vitals(200, { descriptors: 900 }));
    expect(window.judge(200, 1)).toEqual({
      measure: 'descriptors',
      detail: 'worker-0 has 900 of 1000 descriptors in use',
    });
    window.measured('worker-0', vitals(400, { descriptors: 850 }));
    expect(window.judge(400, 1)).toBeUndefined();
    window.measured('worker-0', vitals(600, { descriptors: 850 }));
    expect(window.judge(600, 0.9)?.measure).toBe('descriptors');
    window.measured('worker-0', vitals(800, { descriptors: 800 }));
    expect(window.judge(800, 0.9)).toBeUndefined();
  });

  it('conntrack: two readings in a row', () => {
    const window = windowOf();
    window.tracked({ entries: 95, most: 100 });
    expect(window.judge(0, 1)).toBeUndefined();
    window.tracked({ entries: 91, most: 100 });
    expect(window.judge(0, 1)?.detail).toBe('91 of 100 entries of the connection tracking table are in use');
    window.tracked({ entries: 10, most: 100 });
    expect(window.judge(0, 1)).toBeUndefined();
  });

  it('errors: a share of enough connections of all workers', () => {
    const window = windowOf(vitals(0, { taken: 10, failed: 10 }));
    expect(window.judge(0, 1), 'too few to say').toBeUndefined();
    window.measured('worker-1', vitals(0, { taken: 10, failed: 0 }));
    expect(window.judge(0, 1)?.detail).toContain('10 of 20 new connections');
    window.measured('worker-1', vitals(200, { taken: 1 }));
    expect(window.judge(200, 1)).toBeUndefined();
    expect(windowOf(vitals(0, { failed: 30 })).judge(0, 1)?.measure, 'those that came before').toBe('errors');
  });

  it('crashes: several within a short time', () => {
    const window = windowOf();
    for (const at of [0, 1000, 2000, 3000]) window.crashed(at);
    expect(window.judge(3000, 1)).toBeUndefined();
    window.crashed(4000);
    expect(window.judge(4000, 1)?.measure).toBe('crashes');
    expect(window.judge(11_000, 1)).toBeUndefined();
    for (let at = 20_000; at < 80_000; at += 10_000) window.crashed(at);
    expect(window.judge(80_000, 1)).toBeUndefined();
  });

  it('keeps a bounded number of measurements of a bounded number of workers', () => {
    const window = new GuardWindow({ ...limits, window: 10_000_000 });
    for (let i = 0; i < 5000; i++) window.measured('worker-0', vitals(i, { taken: 1 }));
    window.measured('worker-0', vitals(5000, { failed: 1000 }));
    expect(window.judge(5000, 1)?.detail).toContain('1000 of 1000');
    for (let i = 0; i < 1000; i++) window.measured(`worker-${i}`, vitals(5000, { failed: 10, taken: 10 }));
    expect(window.judge(5000, 1)?.detail).toContain('1640 of 1640');
  });
});

describe('isOwnFault', () => {
  it.each([
    ['out of ports or descriptors on the way to the instance', { path: 'direct', reason: 'overload' }, true],
    ['the kernel refused a call', { path: 'none', reason: 'system' }, true],
    ['a limit, counted where it is refused', { path: 'none', reason: 'overload' }, false],
    ['the far agent is at its limit', { path: 'tunnel', reason: 'overload' }, false],
    ['somebody scans the capture port', { path: 'none', reason: 'loop' }, false],
    ['the instance refuses', { path: 'direct', reason: 'refused' }, false],
    ['done', { path: 'tunnel', reason: 'done' }, false],
    ['somebody else calls us', { path: 'local', reason: 'overload', direction: 'inbound' }, false],
  ] as const)('%s', (_, over, own) => {
    expect(isOwnFault({ ...sampleRecord, direction: 'outbound', ...over })).toBe(own);
  });
});

describe('descriptorShortage', () => {
  it.each([
    [950, 'short'],
    [900, 'short'],
    [899, 'some'],
    [810, 'some'],
    [809, 'none'],
  ] as const)('%d of 1000: %s', (descriptors, shortage) => {
    const vitals = { at: 0, delayMs: 0, descriptors, descriptorLimit: 1000, taken: 0, failed: 0 };
    expect(descriptorShortage(vitals, limits)).toBe(shortage);
  });
});

describe('areVitals', () => {
  const right: Vitals = { at: 1, delayMs: 2, descriptors: 3, descriptorLimit: 4, taken: 5, failed: 6 };

  it('takes what a worker measures and nothing else', () => {
    expect(areVitals(right)).toBe(true);
    fc.assert(fc.property(fc.anything(), (value) => !areVitals(value)));
    for (const key of Object.keys(right)) {
      for (const wrong of [undefined, null, '1', Number.NaN, -1, Number.POSITIVE_INFINITY, 1n]) {
        expect(areVitals({ ...right, [key]: wrong })).toBe(false);
      }
    }
  });
});

describe('VitalSigns', () => {
  it('sees a pause of the loop, and tells at once when it is over', async () => {
    const told: Vitals[] = [];
    const signs = new VitalSigns(new VitalCounts(), (vitals) => told.push(vitals));
    const until = performance.now() + 400;
    while (performance.now() < until);
    while (!told.some(({ delayMs }) => delayMs > 250)) await new Promise(setImmediate);
    signs.stop();
    expect(told.at(-1)!.delayMs).toBeGreaterThan(250);
  });
});

describe('GuardDriver', () => {
  it('withdraws for a table that is nearly full, says so, and comes back when it is not', async () => {
    const asked: string[] = [];
    const counters = new Counters();
    let entries = 100;
    const driver = new GuardDriver({
      limits: { ...limits, returnAfter: 300 },
      log: createLog({ level: 'info', process: 'test', to: { write: (line) => asked.push(line) } }),
      counters,
      interception: {
        suspend: async (reason) => void asked.push(`suspend ${reason}`),
        resume: async (reason) => void asked.push(`resume ${reason}`),
      },
      conntrack: async () => ({ entries, most: 1000 }),
    });
    try {
      await vi.waitFor(() => expect(values(counters).get('mesh_node_conntrack_entries ')).toBe(100), {
        timeout: 10_000,
      });
      expect(driver.status).toEqual({ state: 'in' });
      entries = 930;
      await vi.waitFor(() => expect(asked).toContain('suspend overload'), 3000);
      expect(asked[0]).toContain('guard: in → out: new connections go direct');
      expect(driver.status).toMatchObject({
        state: 'out',
        measure: 'conntrack',
        reason: '930 of 1000 entries of the connection tracking table are in use',
      });
      const out = values(counters);
      expect(out.get('mesh_node_guard_out conntrack')).toBe(1);
      expect(out.get('mesh_node_guard_withdrawals_total conntrack')).toBe(1);
      entries = 700;
      await vi.waitFor(() => expect(asked).toContain('resume overload'), 3000);
      expect(driver.status).toEqual({ state: 'in' });
      expect(values(counters).get('mesh_node_guard_out conntrack')).toBe(0);
    } finally {
      driver.stop();
    }
  });

  it('goes on where connections are not tracked, and where asking fails or hangs', async () => {
    let asked = 0;
    const answers = [() => Promise.resolve(undefined), () => Promise.reject(new Error('EIO'))];
    const driver = new GuardDriver({
      limits,
      log: createLog({ level: 'error', process: 'test' }),
      counters: new Counters(),
      interception: { suspend: async () => {}, resume: async () => {} },
      conntrack: () => answers[asked++]?.() ?? new Promise(() => {}),
    });
    try {
      await vi.waitFor(() => expect(asked).toBe(3), 5000);
      driver.gone('worker-0', true);
      expect(driver.status).toEqual({ state: 'in' });
    } finally {
      driver.stop();
    }
  });
});

function values(counters: Counters): ReadonlyMap<string, number> {
  return new Map(
    counters.drain(true).map(([name, labels, numbers]) => [`${name} ${labels.join(' ')}`, numbers[0]!]),
  );
}
