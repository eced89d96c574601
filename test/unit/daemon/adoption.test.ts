import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { configSchema } from '../../../src/config/schema.ts';
import { judge, objection } from '../../../src/daemon/succession/adoption.ts';
import { parseHello, startFingerprint, type WorkerHello } from '../../../src/daemon/succession/hello.ts';
import { bequeath, inherit } from '../../../src/daemon/succession/inheritance.ts';
import type { Arrival } from '../../../src/daemon/succession/reception.ts';

const terms = { build: '1.0.0+a', fingerprint: 'same', listeners: [5, 6], size: 2 };
const hello: WorkerHello = {
  build: '1.0.0+a',
  fingerprint: 'same',
  index: 0,
  epoch: '18446744073709551615',
  listeners: [6, 5],
  draining: false,
  startedAt: 1,
};
const arrival = (pid: number, more: Partial<WorkerHello>): Arrival => ({
  pid,
  hello: { ...hello, ...more },
  link: undefined as never,
});

describe('adoption', () => {
  it.each([
    [{}, undefined],
    [{ draining: true }, 'it drains'],
    [{ build: '0.9.0+z' }, 'it is of 0.9.0+z'],
    [{ fingerprint: 'other' }, 'settings that act at a start have changed'],
    [{ index: 2 }, 'only 2 workers are wanted'],
    [{ listeners: [5] }, 'it listens elsewhere'],
    [{ listeners: [5, 7] }, 'it listens elsewhere'],
  ])('%j: %s', (more, why) => {
    expect(objection({ ...hello, ...more }, terms)).toBe(why);
  });

  it('has one worker in each place', () => {
    const arrivals = [arrival(10, {}), arrival(11, {}), arrival(12, { index: 1 }), arrival(13, { index: 5 })];
    const { adopted, others } = judge(arrivals, terms);
    expect([...adopted].map(([index, { pid }]) => [index, pid])).toEqual([
      [0, 10],
      [1, 12],
    ]);
    expect(others.map(({ arrival: { pid }, why }) => [pid, why])).toEqual([
      [11, 'its place is taken'],
      [13, 'only 2 workers are wanted'],
    ]);
  });
});

describe('hello', () => {
  it('is understood, also with more in it than this version knows', () => {
    expect(parseHello({ t: 'hello', hello: { ...hello, later: 1 } })).toMatchObject(hello);
  });

  it.each([
    { build: 7 },
    { build: 'x'.repeat(101) },
    { index: -1 },
    { index: 0.5 },
    { epoch: '18446744073709551616' },
    { epoch: 'x' },
    { listeners: ['5'] },
    { listeners: Array.from({ length: 257 }, () => 1) },
    { draining: 'no' },
    { startedAt: Number.NaN },
  ])('%j is none', (wrong) => {
    expect(parseHello({ t: 'hello', hello: { ...hello, ...wrong } })).toBeUndefined();
  });

  it('is never made of anything else', () => {
    fc.assert(
      fc.property(fc.anything(), (message) => {
        expect(parseHello(message)).toBeUndefined();
        expect(parseHello({ t: 'hello', hello: message })).toBeUndefined();
      }),
    );
  });
});

describe('fingerprint', () => {
  const of = (text: object, relay = false) =>
    startFingerprint({ config: configSchema.parse(text), node: 'a' as never, relay });

  it('tells settings apart that act at a start only', () => {
    expect(of({})).toBe(of({}));
    expect(of({ tunnel: { port: 15_009 } })).not.toBe(of({}));
    expect(of({ capture: { mode: 'off' } })).not.toBe(of({}));
    expect(of({}, true)).not.toBe(of({}));
  });

  it('does not see what a reload changes', () => {
    expect(of({ capture: { mode: 'all' } })).toBe(of({ capture: { mode: 'services' } }));
    expect(of({ balance: { ejectAfter: 9 }, daemon: { drainTimeout: '1s' } })).toBe(of({}));
  });
});

describe('inheritance', () => {
  const left = {
    installedAt: '/usr/lib/mesh-node',
    from: { version: '1.0.0', directory: '/usr/lib/mesh-node.old' },
  };

  it('goes from one image to the next, once; descriptors that are not open are left out', () => {
    const listeners = [
      { fd: 1, name: 'tunnel-0' },
      { fd: 54_321, name: 'capture-0' },
    ];
    const environment: NodeJS.ProcessEnv = { HOME: '/', ...bequeath({ ...left, listeners }) };
    expect(inherit(environment)).toEqual({ ...left, listeners: [listeners[0]] });
    expect(environment).toEqual({ HOME: '/' });
    expect(inherit(environment)).toBeUndefined();
  });
});
