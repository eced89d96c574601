import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { ServingWatch } from '../../../src/daemon/interception/serving-watch.ts';

const PATIENCE = 1000;
let told: string[];
let watch: ServingWatch;

beforeEach(() => {
  vi.useFakeTimers();
  told = [];
  const driver = {
    begun: true,
    suspensions: [] as 'nobody-serves'[],
    suspend: async (reason: string) => void told.push(`suspend ${reason}`),
    resume: async (reason: string) => void told.push(`resume ${reason}`),
  };
  watch = new ServingWatch(driver, { error: (text: unknown) => void told.push(String(text)) });
});
afterEach(() => {
  watch.stop();
  vi.useRealTimers();
});

const taken = (): string[] => told.splice(0);
const SILENT = ['no worker gives a sign of life: new connections go direct', 'suspend nobody-serves'];

test('a worker that is replaced in time changes nothing', () => {
  watch.check(0, PATIENCE);
  vi.advanceTimersByTime(PATIENCE - 1);
  expect(taken()).toEqual([]);
  watch.check(1, PATIENCE);
  vi.advanceTimersByTime(PATIENCE);
  expect(taken()).toEqual(['resume nobody-serves']);
});

test('none serves for longer: direct, until one does', () => {
  watch.check(0, PATIENCE);
  watch.check(0, PATIENCE);
  vi.advanceTimersByTime(PATIENCE);
  expect(taken()).toEqual(['no worker serves: new connections go direct', 'suspend nobody-serves']);
  watch.beat(undefined, PATIENCE);
  expect(taken()).toEqual([]);
  watch.check(1, PATIENCE);
  expect(taken()).toEqual(['resume nobody-serves']);
});

test('all that serve are silent: direct at once, until one speaks', () => {
  watch.beat(PATIENCE, PATIENCE);
  expect(taken()).toEqual([]);
  watch.beat(PATIENCE + 1, PATIENCE);
  expect(taken()).toEqual(SILENT);
  watch.beat(PATIENCE + 250, PATIENCE);
  expect(taken()).toEqual([]);
  watch.beat(10, PATIENCE);
  expect(taken()).toEqual(['resume nobody-serves']);
});

test('one of them ends: those that are left are silent all the same', () => {
  watch.beat(PATIENCE + 1, PATIENCE);
  taken();
  watch.check(1, PATIENCE);
  expect(taken()).toEqual([]);
  watch.check(0, PATIENCE);
  watch.check(1, PATIENCE);
  expect(taken()).toEqual(['resume nobody-serves']);
});
