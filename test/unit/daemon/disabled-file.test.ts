import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { DisabledFile } from '../../../src/daemon/supervisor/disabled-file.ts';
import { waitFor } from '../../support/process.ts';

let directory: string;
let told: (boolean | string)[];
let watch: DisabledFile;
const path = (name = 'disabled') => join(directory, name);

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'disabled-'));
  told = [];
});
afterEach(() => {
  watch.stop();
  rmSync(directory, { recursive: true, force: true });
});

async function follow(file: string): Promise<void> {
  const failed = (reason: string) => told.push(reason);
  watch = new DisabledFile(file, { changed: (disabled) => told.push(disabled), failed });
  await watch.start();
}
const settled = (...states: (boolean | string)[]) =>
  waitFor(`it is told ${states.join(', ')}`, () => JSON.stringify(told) === JSON.stringify(states), {
    timeoutMs: 3000,
  });

test('what is there at the start is known when start resolves', async () => {
  writeFileSync(path(), '');
  await follow(path());
  expect(told).toEqual([true]);
});

test('made and removed while it is watched; each change is told once', async () => {
  await follow(path());
  expect(told).toEqual([false]);
  writeFileSync(path(), '');
  await settled(false, true);
  rmSync(path());
  await settled(false, true, false);
});

test('in a directory that comes later; anything of that name counts', async () => {
  await follow(path('etc/disabled'));
  mkdirSync(path('etc'));
  symlinkSync('nowhere', path('etc/disabled'));
  await settled(false, true);
});

test('another file after a reload', async () => {
  writeFileSync(path('other'), '');
  await follow(path());
  watch.configure(path('other'));
  await settled(false, true);
});

test('what cannot be looked at changes nothing, and is said once', async () => {
  writeFileSync(path(), '');
  await follow(path());
  symlinkSync('loop', path('loop'));
  watch.configure(path('loop/disabled'));
  await settled(true, `ELOOP: too many symbolic links encountered, lstat '${path('loop/disabled')}'`);
  watch.configure(path('none'));
  await settled(true, told[1]!, false);
});

test('nothing is told after stop', async () => {
  await follow(path());
  watch.stop();
  vi.useFakeTimers();
  writeFileSync(path(), '');
  await vi.advanceTimersByTimeAsync(5000);
  vi.useRealTimers();
  expect(told).toEqual([false]);
});
