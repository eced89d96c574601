import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { formatAllowEntry } from '../../../src/capture/allow-list.ts';
import { AllowListWatch } from '../../../src/capture/allow-list-watch.ts';

describe('AllowListWatch', () => {
  let directory: string;
  let file: string;
  let told: string[];
  let watch: AllowListWatch;
  const soon = (...expected: string[]) => vi.waitFor(() => expect(told).toEqual(expected), { timeout: 8000 });

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'mncap-'));
    file = join(directory, 'etc', 'allow-list');
    mkdirSync(join(directory, 'etc'));
    told = [];
    watch = new AllowListWatch(file, {
      changed: (list) => told.push(list.map(formatAllowEntry).join(' ')),
      rejected: (problems) => told.push(...problems.map((problem) => problem.replace(file, 'FILE'))),
      missing: (kept) => told.push(kept ? 'kept' : 'none'),
    });
  });
  afterEach(() => {
    watch.stop();
    rmSync(directory, { recursive: true });
  });

  it('reads at the start and follows writes and renames', async () => {
    writeFileSync(file, '10.0.0.1\n');
    await watch.start();
    expect(told).toEqual(['10.0.0.1']);
    writeFileSync(`${file}.new`, 'tcp/22\n');
    renameSync(`${file}.new`, file);
    await soon('10.0.0.1', 'tcp/22');
    writeFileSync(file, '');
    await soon('10.0.0.1', 'tcp/22', '');
  });

  it('keeps the last good list when lines are bad, and tells each once', async () => {
    writeFileSync(file, '10.0.0.1\n');
    await watch.start();
    writeFileSync(file, 'x\n10.0.0.2\n y\n');
    await watch.reload();
    await watch.reload();
    expect(told.map((text) => text.split(',')[0])).toEqual([
      '10.0.0.1',
      'FILE:1:1: found "x"',
      'FILE:3:2: found "y"',
    ]);
    writeFileSync(file, '10.0.0.1\n');
    await watch.reload();
    expect(told.at(-1)).toBe('10.0.0.1');
  });

  it('starts empty without a file, and keeps the last good list when it goes', async () => {
    rmSync(join(directory, 'etc'), { recursive: true });
    await watch.start();
    expect(told).toEqual(['none']);
    mkdirSync(join(directory, 'etc'));
    writeFileSync(file, '10.0.0.1\n');
    await soon('none', '10.0.0.1');
    rmSync(file);
    await soon('none', '10.0.0.1', 'kept');
  });

  it('refuses what is no file, and what is too large', async () => {
    mkdirSync(file);
    await watch.start();
    expect(told).toEqual(['FILE: not a regular file']);
    rmSync(file, { recursive: true });
    writeFileSync(file, '#'.repeat(1024 * 1024 + 1));
    await watch.reload();
    expect(told.at(-1)).toMatch(/bytes; the bound is 1048576/);
  });

  it('says nothing after stop', async () => {
    writeFileSync(file, '10.0.0.1\n');
    await watch.start();
    watch.stop();
    writeFileSync(file, '10.0.0.2\n');
    await watch.reload();
    expect(told).toEqual(['10.0.0.1']);
  });
});
