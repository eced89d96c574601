import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { FallbackFiles } from '../../../src/daemon/interception/fallback-files.ts';
import { waitFor } from '../../support/process.ts';

let directory: string;
let files: FallbackFiles;
const log = { info: vi.fn(), warn: vi.fn() };
const path = (name = '') => join(directory, 'state', 'fallback', name);
const read = (name: string) => readFileSync(path(name), 'utf8');

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'fallback-'));
  files = new FallbackFiles(join(directory, 'state'), log);
});
afterEach(async () => {
  await files.stop();
  rmSync(directory, { recursive: true, force: true });
  vi.clearAllMocks();
});

test('changes of a second are written together, the last one counts', async () => {
  const render = vi.fn(() => ({ sets: 'two' }));
  files.changed(() => ({ sets: 'one' }));
  files.changed(render);
  await waitFor('it is written', () => {
    try {
      return read('sets') === 'two';
    } catch {
      return false;
    }
  });
  expect(render).toHaveBeenCalledTimes(1);
  expect(readdirSync(path())).toEqual(['sets']);
  expect(statSync(path()).mode & 0o777).toBe(0o700);
});

test('what has not changed is not written', async () => {
  files.changed(() => ({ sets: 'a', hosts: 'b' }));
  await files.flush();
  const before = statSync(path('sets')).ino;
  files.changed(() => ({ sets: 'a', hosts: 'c' }));
  await files.flush();
  expect(statSync(path('sets')).ino).toBe(before);
  expect(read('hosts')).toBe('c');
});

test('a file that is not to be there goes', async () => {
  files.changed(() => ({ sets: 'a', hosts: 'b' }));
  await files.flush();
  files.changed(() => ({ sets: undefined, hosts: 'b' }));
  await files.flush();
  expect(readdirSync(path())).toEqual(['hosts']);
});

test('while there is nothing to say, what an earlier run said stays', async () => {
  files.changed(() => ({ sets: 'a' }));
  await files.flush();
  const next = new FallbackFiles(join(directory, 'state'), log);
  next.changed(() => undefined);
  await next.flush();
  expect(read('sets')).toBe('a');
});

test('a change that comes while it is being written follows', async () => {
  files.changed(() => {
    files.changed(() => ({ sets: 'second' }));
    return { sets: 'first' };
  });
  await files.flush();
  expect(read('sets')).toBe('first');
  await files.flush();
  expect(read('sets')).toBe('second');
});

test('what cannot be written is said once, nothing is lost, and it is made good', async () => {
  writeFileSync(join(directory, 'state'), 'in the way');
  files.changed(() => ({ sets: 'a' }));
  await files.flush();
  await files.flush();
  expect(files.problem).toMatch(/EEXIST|ENOTDIR/);
  expect(log.warn).toHaveBeenCalledTimes(1);
  rmSync(join(directory, 'state'));
  await files.flush();
  expect(files.problem).toBeUndefined();
  expect(read('sets')).toBe('a');
});
