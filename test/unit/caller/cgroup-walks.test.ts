import { mkdir, mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { CgroupWalks } from '../../../src/caller/cgroup-walks.ts';
import { waitFor } from '../../support/process.ts';

let root: string;
let walks: CgroupWalks;
let walked: number[];
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'walks-'));
  await mkdir(join(root, 'system.slice/old.service'), { recursive: true });
  walked = [];
  walks = new CgroupWalks((beganAt) => walked.push(beganAt), root);
  walks.want();
  await waitFor('the first walk is over', () => walked.length === 1);
});
afterEach(async () => {
  walks.close();
  await rm(root, { recursive: true });
});

const make = async (path: string): Promise<number> => {
  await mkdir(join(root, path));
  return (await stat(join(root, path))).ino;
};
const known = (inode: number) => waitFor('it is known', () => walks.tree.names.get(inode));

test('a unit that starts is known without a walk', async () => {
  const inode = await make('system.slice/orders.service');
  expect(await known(inode)).toEqual({ unit: 'orders.service' });
  expect(walked.slice(1)).toEqual([Number.NEGATIVE_INFINITY]);
});

test('a unit that starts again is another one', async () => {
  const before = (await stat(join(root, 'system.slice/old.service'))).ino;
  expect(await known(before)).toEqual({ unit: 'old.service' });
  await rename(join(root, 'system.slice/old.service'), join(root, 'gone'));
  const inode = await make('system.slice/old.service');
  expect(inode).not.toBe(before);
  expect(await known(inode)).toEqual({ unit: 'old.service' });
});

test('a new slice is walked and watched', async () => {
  await make('shop.slice');
  const inside = await make('shop.slice/web.service');
  expect(await known(inside)).toEqual({ unit: 'web.service' });
  await waitFor('a walk is over', () => walked.some((beganAt, at) => at > 0 && beganAt > 0));
  const later = await make('shop.slice/later.service');
  expect(await known(later)).toEqual({ unit: 'later.service' });
});

test('what users make is not watched, files are nothing, and all of it ends', async () => {
  await mkdir(join(root, 'user.slice/user-1.slice'), { recursive: true });
  walks.want();
  await waitFor('a walk is over', () => walked.filter((beganAt) => beganAt > 0).length >= 2);
  const count = walked.length;
  await make('user.slice/user-1.slice/orders.service');
  await writeFile(join(root, 'system.slice/cgroup.procs'), '');
  const marker = await make('system.slice/marker.service');
  await known(marker);
  expect(walked.length).toBe(count + 1);
  walks.close();
  await make('system.slice/unseen.service');
  walks.want();
  expect(walked.length).toBe(count + 1);
});

test('many who ask are one walk, and one more for those who came during it', async () => {
  for (let i = 0; i < 100; i++) walks.want();
  await waitFor('a walk is over', () => walked.length === 2);
  for (let i = 0; i < 100; i++) walks.want();
  await waitFor('a walk is over', () => walked.length === 3);
});
