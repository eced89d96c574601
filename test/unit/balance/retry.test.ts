import { expect, test } from 'vitest';
import { mayRetry } from '../../../src/balance/retry.ts';

const failed = { attempt: 1, maxAttempts: 3, delivered: false, code: 'refused', source: 'callee' } as const;

test('another instance is tried while no byte can have reached the first', () => {
  expect(mayRetry(failed)).toBe(true);
  for (const code of [
    'timeout',
    'unreachable',
    'overload',
    'draining',
    'tunnel-lost',
    'no-instance',
  ] as const) {
    expect(mayRetry({ ...failed, code })).toBe(true);
  }
});

test('nothing that may have been delivered is repeated', () => {
  expect(mayRetry({ ...failed, delivered: true })).toBe(false);
});

test('attempts are bounded', () => {
  expect(mayRetry({ ...failed, attempt: 2 })).toBe(true);
  expect(mayRetry({ ...failed, attempt: 3 })).toBe(false);
});

test('what every instance would answer the same is not asked twice', () => {
  for (const code of ['denied', 'loop', 'configuration', 'system'] as const) {
    expect(mayRetry({ ...failed, code })).toBe(false);
  }
});

test('another agent may answer otherwise than the first', () => {
  expect(mayRetry({ ...failed, code: 'denied', source: 'peer' })).toBe(true);
  expect(mayRetry({ ...failed, code: 'denied', source: 'peer', delivered: true })).toBe(false);
});
