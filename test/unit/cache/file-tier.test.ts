import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { decodeFile, FileEncoder } from '../../../src/cache/file-format.ts';
import { FileTier } from '../../../src/cache/file-tier.ts';

interface Entry {
  readonly name: string;
}

const check = (record: unknown): Entry | undefined => {
  const name = (record as { name?: unknown } | null)?.name;
  return typeof name === 'string' ? { name } : undefined;
};

let directory: string;
let path: string;
const warnings: object[] = [];
const log = { info: () => undefined, warn: (fields: object) => void warnings.push(fields) };
const tier = (writeDelay = 5, at = path) => new FileTier<Entry>({ path: at, writeDelay, check, log });
const soon = { timeout: 20_000, interval: 5 };
const three = [{ name: 'a' }, { name: 'b' }, { name: 'c' }];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mnreg-'));
  path = join(directory, 'some.cache');
  warnings.length = 0;
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function written(records: readonly Entry[] = three): Promise<void> {
  const writer = tier();
  writer.changed(() => records);
  await writer.flush();
}

test('what was written is read back, by its owner only', async () => {
  await written();
  const reader = tier();
  const { records, writtenAt } = await reader.load();
  expect(records).toEqual(three);
  expect(Date.now() - writtenAt!).toBeLessThan(60_000);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(readdirSync(directory)).toEqual(['some.cache']);
});

test('no file is no records and no complaint', async () => {
  expect(await tier().load()).toEqual({ records: [], writtenAt: undefined });
  expect(warnings).toEqual([]);
});

test('changes within the delay become one write', async () => {
  const writer = tier(30);
  let asked = 0;
  for (let i = 0; i < 50; i++) {
    writer.changed(() => {
      asked++;
      return three;
    });
  }
  await vi.waitFor(() => expect(writer.status.writes).toBe(1), soon);
  expect(asked).toBe(1);
  await writer.flush();
  expect(writer.status.writes).toBe(1);
});

test('a change during a write is written after it', async () => {
  const writer = tier(1);
  writer.changed(function* () {
    writer.changed(() => [{ name: 'later' }]);
    yield { name: 'first' };
  });
  await vi.waitFor(() => expect(writer.status.writes).toBe(2), soon);
  expect((await tier().load()).records).toEqual([{ name: 'later' }]);
});

test.each([
  ['one bit flipped in a record', (file: Buffer) => file.writeUInt8(file.readUInt8(70) ^ 1, 70) && file],
  ['one bit flipped in the header', (file: Buffer) => file.writeUInt8(file.readUInt8(13) ^ 1, 13) && file],
  ['the end missing', (file: Buffer) => file.subarray(0, file.length - 1)],
  ['something after the end', (file: Buffer) => Buffer.concat([file, Buffer.from([0])])],
  ['nothing', () => Buffer.alloc(0)],
  ['another format', () => Buffer.from('{"services":[]}'.repeat(10))],
])('%s: set aside, reported, counted, and written anew', async (_what, damage) => {
  await written();
  writeFileSync(path, damage(readFileSync(path)) as Buffer);
  const reader = tier();
  expect((await reader.load()).records).toEqual([]);
  expect(reader.status.damaged).toBe(1);
  expect(existsSync(path)).toBe(false);
  expect(readdirSync(directory)).toEqual([expect.stringMatching(/^some\.cache\.damaged-\d+$/)]);
  expect(warnings).toHaveLength(1);
  await written();
  expect((await tier().load()).records).toEqual(three);
});

test('a format of another time is set aside', async () => {
  await written();
  const file = readFileSync(path);
  file.writeUInt32BE(99, 8);
  // With the right checksum: only the version is foreign.
  const { createHash } = await import('node:crypto');
  createHash('sha256').update(file.subarray(0, 32)).update(file.subarray(64)).digest().copy(file, 32);
  expect(decodeFile(file)).toBe('format version 99 cannot be read');
});

test('only the newest damaged files are kept', async () => {
  for (let i = 0; i < 6; i++) {
    writeFileSync(path, `damage ${i}`);
    await tier().load();
    await vi.waitFor(() => expect(Date.now()).toBeGreaterThan(statSync(directory).mtimeMs + 1), soon);
  }
  expect(readdirSync(directory)).toHaveLength(3);
});

test('records that break a rule are refused, the others stay', async () => {
  const encoder = new FileEncoder();
  for (const record of [
    { name: 'a' },
    { name: 1 },
    'text',
    null,
    { name: 'b' },
    /x/,
    new Map([['name', 'x']]),
  ])
    encoder.add(record);
  const { parts } = encoder.finish(Date.now());
  writeFileSync(path, Buffer.concat(parts));
  const reader = tier();
  expect((await reader.load()).records.map((entry) => entry.name)).toEqual(
    expect.arrayContaining(['a', 'b']),
  );
  expect(reader.status.refused).toBeGreaterThanOrEqual(4);
  expect(reader.status.damaged).toBe(0);
});

test('a directory that cannot be written: memory goes on, counted, one complaint', async () => {
  writeFileSync(join(directory, 'file'), '');
  const writer = tier(1, join(directory, 'file', 'x.cache'));
  for (let i = 0; i < 3; i++) {
    writer.changed(() => three);
    await writer.flush();
  }
  expect(writer.status.failedWrites).toBe(3);
  expect(writer.status.lastError).toMatch(/ENOTDIR|EEXIST/);
  expect(warnings).toHaveLength(1);
});

test('a disk that is full: the old file stays, and is replaced when there is room again', async () => {
  const mount = join(directory, 'small');
  mkdirSync(mount);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', mount]);
  try {
    const small = tier(1, join(mount, 'some.cache'));
    small.changed(() => three);
    await small.flush();
    small.changed(() => [{ name: 'x'.repeat(200_000) }]);
    await small.flush();
    expect(small.status.lastError).toMatch(/ENOSPC/);
    expect(small.status.failedWrites).toBe(1);
    expect((await tier(1, join(mount, 'some.cache')).load()).records).toEqual(three);
    expect(readdirSync(mount)).toEqual(['some.cache']);
    small.changed(() => [{ name: 'after' }]);
    await small.flush();
    expect(small.status.lastError).toBeUndefined();
    expect((await tier(1, join(mount, 'some.cache')).load()).records).toEqual([{ name: 'after' }]);
  } finally {
    execFileSync('umount', [mount]);
  }
});

test('a link in place of the file is not followed', async () => {
  await written();
  const { symlinkSync } = await import('node:fs');
  symlinkSync(path, join(directory, 'link'));
  expect((await tier(1, join(directory, 'link')).load()).records).toEqual([]);
});

test('a source of records that throws does not reach the caller', async () => {
  const writer = tier();
  writer.changed(() => {
    throw new Error('broken source');
  });
  await writer.flush();
  expect(writer.status.lastError).toBe('broken source');
});
