import { expect, it } from 'vitest';
import { clockSynchronised } from '../../../src/io/clock.ts';

it('the kernel says whether its clock is kept right', () => {
  expect(typeof clockSynchronised()).toBe('boolean');
});
