import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Users } from '../../../src/caller/users.ts';
import { Passwd } from '../../../src/io/passwd.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'users-'));
});
afterEach(() => rm(directory, { recursive: true }));

test('names come from the file, and follow it', async () => {
  const passwd = join(directory, 'passwd');
  let changes = 0;
  const users = new Users(new Passwd(passwd), () => changes++);
  await users.look();
  expect([users.name(0), changes]).toEqual(['0', 0]);
  await writeFile(passwd, 'root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\nshop:x:1000:1000::/:\n');
  await users.look();
  expect([users.name(0), users.name(1000), users.name(7), changes]).toEqual(['root', 'shop', '7', 1]);
  await users.look();
  expect(changes).toBe(1);
  await writeFile(join(directory, 'new'), 'store:x:1000:1000::/:\n');
  await rename(join(directory, 'new'), passwd);
  await users.look();
  expect([users.name(0), users.name(1000), changes]).toEqual(['0', 'store', 2]);
  await rm(passwd);
  await users.look();
  expect(users.name(1000)).toBe('store');
});

test('lines that are none, and names that cannot travel, are numbers', async () => {
  const passwd = join(directory, 'passwd');
  const users = new Users(new Passwd(passwd), () => {});
  const lines = [
    '',
    ':',
    'a:b',
    'x:x:',
    'neg:x:-1:',
    'hex:x:0x10:',
    'sp ace:x:5:5',
    `${'l'.repeat(65)}:x:6:6`,
    'mü:x:8:8',
  ];
  await writeFile(passwd, `${lines.join('\n')}\nok:x:9:9`);
  await users.look();
  expect([5, 6, 8, 9, 16].map((uid) => users.name(uid))).toEqual(['5', '6', '8', 'ok', '16']);
});
