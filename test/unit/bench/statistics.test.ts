import { describe, expect, it } from 'vitest';
import { median, pairedRatios, spread } from '../../../bench/statistics.ts';

describe('median', () => {
  it('is the middle value, or the mean of the two middle ones', () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([4, 1, 9, 2])).toBe(3);
    expect(median([])).toBeNaN();
  });
});

describe('spread', () => {
  it('has median and extremes, or is nothing', () => {
    expect(spread([3, 1, 2])).toEqual({ median: 2, min: 1, max: 3 });
    expect(spread([])).toBeUndefined();
  });
});

describe('pairedRatios', () => {
  it('divides round by round', () => {
    expect(pairedRatios([10, 30], [20, 10])).toEqual([0.5, 3]);
  });

  it('leaves out rounds that lack a value or hold a zero', () => {
    expect(pairedRatios([1, undefined, 4, 0, 8], [0, 2, undefined, 5, 4])).toEqual([2]);
  });
});
