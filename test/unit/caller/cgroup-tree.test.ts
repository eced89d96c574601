import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { findCgroupRoot, walkCgroups } from '../../../src/caller/cgroup-tree.ts';

const ID = 'ab'.repeat(32);

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cgroups-'));
});
afterEach(() => rm(root, { recursive: true }));

const directory = async (path: string): Promise<number> => {
  await mkdir(join(root, path), { recursive: true });
  return (await stat(join(root, path))).ino;
};

test('every directory is known by its inode number', async () => {
  const orders = await directory('system.slice/orders.service');
  const below = await directory('system.slice/orders.service/worker');
  const users = await directory('user.slice/user-1.slice/user@1.service/orders.service');
  const container = await directory(`system.slice/docker-${ID}.scope`);
  const inner = await directory(`system.slice/docker-${ID}.scope/init`);
  await writeFile(join(root, 'system.slice/cgroup.procs'), '1\n');
  const { names, containers } = await walkCgroups(root);
  expect(names.get(orders)).toEqual({ unit: 'orders.service' });
  expect(names.get(below)).toEqual({ unit: 'orders.service' });
  expect(names.get(users)).toEqual({});
  expect(names.get(inner)).toEqual({ container: 'abababababab' });
  expect(names.get(container)).toEqual({ container: 'abababababab' });
  expect(names.size).toBe(10);
  expect([...containers]).toEqual([
    [
      'abababababab',
      [join(root, `system.slice/docker-${ID}.scope`), join(root, `system.slice/docker-${ID}.scope/init`)],
    ],
  ]);
});

test('a crowd of directories of a user or a unit hides no unit', async () => {
  const crowd = Array.from({ length: 200 }, (_, i) => i);
  await directory('user.slice/user-1.slice');
  await directory('system.slice/crowd.service');
  await Promise.all(
    crowd.flatMap((i) => [
      mkdir(join(root, `user.slice/user-1.slice/app-${i}.scope`)),
      mkdir(join(root, `system.slice/crowd.service/part-${i}`)),
    ]),
  );
  const last = await directory('zz.slice/zz-zz.slice/orders.service');
  const { names } = await walkCgroups(root, 250);
  expect(names.get(last)).toEqual({ unit: 'orders.service' });
  expect(names.size).toBe(250);
});

test('nothing is followed that is no directory, and a root that is gone is empty', async () => {
  expect((await walkCgroups(join(root, 'gone'))).names.size).toBe(0);
  let deep = 'a.slice';
  for (let i = 0; i < 30; i++) deep += '/x';
  await directory(deep);
  expect((await walkCgroups(root)).names.size).toBe(17);
});

test('the hierarchy is found where it is mounted', async () => {
  const mountinfo = join(root, 'mountinfo');
  const lines = [
    '25 1 0:22 / /proc rw,nosuid - proc proc rw',
    '30 25 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory',
    '34 25 0:29 /some/part /run/part rw shared:9 - cgroup2 cgroup2 rw',
    '35 25 0:29 / /sys/fs/cgroup/uni\\040fied rw,nosuid shared:10 - cgroup2 cgroup2 rw',
  ];
  await writeFile(mountinfo, `${lines.join('\n')}\n`);
  expect(await findCgroupRoot(mountinfo)).toBe('/sys/fs/cgroup/uni fied');
  await writeFile(mountinfo, lines.slice(0, 3).join('\n'));
  expect(await findCgroupRoot(mountinfo)).toBeUndefined();
  expect(await findCgroupRoot(join(root, 'none'))).toBeUndefined();
});
