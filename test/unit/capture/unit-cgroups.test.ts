import { mkdirSync, mkdtempSync, renameSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { UnitCgroups } from '../../../src/capture/unit-cgroups.ts';

// The hierarchy is made of plain directories here: notifications and numbers of directories are the same.
describe('UnitCgroups', () => {
  let root: string;
  let changes: number;
  let units: UnitCgroups;
  const make = (...parts: string[]) => mkdirSync(join(root, ...parts), { recursive: true });
  const inode = (path: string) => statSync(join(root, path)).ino;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'mnal-cg-'));
    changes = 0;
    units = new UnitCgroups({ directory: root, prefix: '' }, () => {
      changes++;
    });
  });
  afterEach(() => {
    units.stop();
    rmSync(root, { recursive: true });
  });

  it('finds units below slices, and no namesake of a user, a service or a container', () => {
    make('user.slice/user-1000.slice/user@1000.service/app.slice/a.service');
    make('system.slice/docker-1.scope/system.slice/a.service');
    make('system.slice/b.service/a.service');
    make('docker/1/system.slice/a.service');
    units.set(new Set(['a.service', 'b.service', 'user-1000.slice', 'x@1.service']));
    expect(units.get('a.service')).toBeUndefined();
    expect(units.get('b.service')?.path).toBe('system.slice/b.service');
    expect(units.get('user-1000.slice')?.path).toBe('user.slice/user-1000.slice');
    make('system.slice/system-x.slice/x@1.service');
    units.set(new Set(['x@1.service']));
    expect(units.get('x@1.service')).toEqual({
      path: 'system.slice/system-x.slice/x@1.service',
      inode: inode('system.slice/system-x.slice/x@1.service'),
    });
  });

  it('tells at once of a unit that appears, also in a slice that appears with it', async () => {
    units.set(new Set(['late.service']));
    make('batch.slice/late.service');
    await vi.waitFor(() => expect(units.get('late.service')?.path).toBe('batch.slice/late.service'), {
      timeout: 5000,
    });
    expect(changes).toBe(1);
  });

  it('tells of another directory at the same path, and once of a unit that is gone', async () => {
    make('system.slice/a.service');
    units.set(new Set(['a.service']));
    const before = units.get('a.service')!.inode;
    make('fresh'); // beside the old one, so that its number is another
    rmdirSync(join(root, 'system.slice/a.service'));
    renameSync(join(root, 'fresh'), join(root, 'system.slice/a.service'));
    await vi.waitFor(() => expect(units.get('a.service')?.inode).toBe(inode('system.slice/a.service')), {
      timeout: 5000,
    });
    expect(units.get('a.service')!.inode).not.toBe(before);
    expect(changes).toBe(1);
    rmdirSync(join(root, 'system.slice/a.service'));
    await vi.waitFor(() => expect(units.get('a.service')).toBeUndefined(), { timeout: 5000 });
    expect(changes).toBe(2);
  });

  it('tells seldom of a unit that fails and starts again without end, and the last one in the end', async () => {
    units.set(new Set(['a.service']));
    const path = join(root, 'system.slice/a.service');
    make('system.slice');
    const end = performance.now() + 1000;
    for (let i = 0; performance.now() < end; i++) {
      // Old ones are kept aside, so that their numbers are not given again: the kernel gives those of groups once.
      if (i > 0) renameSync(path, join(root, `old${i}`));
      await pause(2);
      mkdirSync(path);
      await pause(10);
    }
    await vi.waitFor(() => expect(units.get('a.service')?.inode).toBe(inode('system.slice/a.service')), {
      timeout: 5000,
    });
    expect(changes).toBeGreaterThan(1);
    expect(changes).toBeLessThan(10);
  });

  it('is told of a unit that goes after others are followed', async () => {
    make('system.slice/a.service');
    units.set(new Set(['a.service']));
    rmdirSync(join(root, 'system.slice/a.service'));
    make('system.slice/b.service');
    units.set(new Set(['a.service', 'b.service']));
    rmdirSync(join(root, 'system.slice/b.service'));
    await vi.waitFor(() => expect(units.get('b.service')).toBeUndefined(), { timeout: 5000 });
  });

  it('finds nothing without a hierarchy', () => {
    const none = new UnitCgroups(undefined, () => undefined);
    none.set(new Set(['a.service']));
    expect(none.usable).toBe(false);
    expect(none.get('a.service')).toBeUndefined();
    none.stop();
  });
});
