import { expect, it } from 'vitest';
import { coalesced } from '../../../src/daemon/interception/coalesced.ts';

it('runs one at a time, and once more for all that is asked meanwhile', async () => {
  const gates: (() => void)[] = [];
  let runs = 0;
  let atOnce = 0;
  const ask = coalesced(async () => {
    runs++;
    expect(++atOnce).toBe(1);
    await new Promise<void>((resolve) => gates.push(resolve));
    atOnce--;
  });
  const first = ask();
  const later = [ask(), ask(), ask()];
  gates.shift()!();
  await new Promise((resolve) => setImmediate(resolve));
  expect(runs).toBe(2);
  gates.shift()!();
  await Promise.all([first, ...later]);
  expect(runs).toBe(2);
  const again = ask();
  gates.shift()!();
  await again;
  expect(runs).toBe(3);
});
