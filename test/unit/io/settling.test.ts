import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Settling } from '../../../src/io/settling.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('acts once it is quiet', () => {
  const act = vi.fn();
  const settling = new Settling(50, 250, act);
  settling.touch();
  vi.advanceTimersByTime(49);
  settling.touch();
  vi.advanceTimersByTime(49);
  expect(act).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1);
  expect(act).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(1000);
  expect(act).toHaveBeenCalledTimes(1);
});

test('acts under constant change, at the latest time after the first of each row', () => {
  const act = vi.fn();
  const settling = new Settling(50, 250, act);
  for (let at = 0; at < 1000; at += 10) {
    settling.touch();
    vi.advanceTimersByTime(10);
  }
  expect(act).toHaveBeenCalledTimes(4);
});

test('what is cleared is forgotten', () => {
  const act = vi.fn();
  const settling = new Settling(50, 250, act);
  settling.touch();
  vi.advanceTimersByTime(40);
  settling.clear();
  vi.advanceTimersByTime(1000);
  expect(act).not.toHaveBeenCalled();
});
