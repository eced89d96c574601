import { chmodSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { fingerprintOf, readDirectory } from '../../../src/policy/directory.ts';
import { policyLimits } from '../../../src/policy/limits.ts';

let base: string;
let directory: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'mesh-policies-'));
  directory = join(base, 'policies.d');
  mkdirSync(directory, { mode: 0o755 });
});
afterEach(() => rmSync(base, { recursive: true }));

const write = (name: string, text = 'x') => writeFileSync(join(directory, name), text, { mode: 0o644 });

async function read() {
  const reading = await readDirectory(directory);
  if (reading === 'missing' || 'problems' in reading) throw new Error(JSON.stringify(reading));
  return reading;
}

async function problem(): Promise<string> {
  const reading = await readDirectory(directory);
  if (reading === 'missing' || !('problems' in reading)) throw new Error('read');
  const [{ origin, found, expected }] = reading.problems as [(typeof reading.problems)[0]];
  return `${origin.replace(directory, '.')}: ${found}, ${expected}`;
}

it('reads documents in the order of their names, and nothing else', async () => {
  for (const name of [
    'b.yaml',
    'a.yml',
    '.hidden.yaml',
    'a.yaml~',
    '#a.yaml#',
    '.#a.yaml',
    'c.yaml.rpmnew',
    'c.json',
  ])
    write(name, name);
  const { files, warnings } = await read();
  expect(files.map(({ path, bytes }) => [path, Buffer.from(bytes).toString()])).toEqual([
    [join(directory, 'a.yml'), 'a.yml'],
    [join(directory, 'b.yaml'), 'b.yaml'],
  ]);
  expect(warnings).toEqual([]);
});

it('tells an absent directory from an empty one', async () => {
  expect((await read()).files).toEqual([]);
  rmSync(directory, { recursive: true });
  expect(await readDirectory(directory)).toBe('missing');
  expect(await fingerprintOf(directory)).toBeUndefined();
});

it('has another fingerprint after each change', async () => {
  const seen = new Set<string | undefined>();
  const look = async () => seen.add(await fingerprintOf(directory));
  await look();
  write('a.yaml');
  await look();
  write('a.yaml', 'longer');
  await look();
  renameSync(join(directory, 'a.yaml'), join(directory, 'b.yaml'));
  await look();
  renameSync(directory, `${directory}-1`);
  symlinkSync(`${directory}-1`, directory);
  await look();
  expect(seen.size).toBe(5);
});

it('warns of what everybody may write', async () => {
  write('a.yaml');
  chmodSync(join(directory, 'a.yaml'), 0o666);
  chmodSync(directory, 0o777);
  expect((await read()).warnings).toEqual([
    `${directory}: everybody may write it`,
    `${join(directory, 'a.yaml')}: everybody may write it`,
  ]);
});

it('refuses what is no regular file, and links that lead nowhere', async () => {
  mkdirSync(join(directory, 'a.yaml'));
  expect(await problem()).toBe('./a.yaml: something else, a regular file');
  rmSync(join(directory, 'a.yaml'), { recursive: true });
  symlinkSync('/nowhere', join(directory, 'a.yaml'));
  expect(await problem()).toBe('./a.yaml: a link that leads nowhere, a regular file');
  rmSync(directory, { recursive: true });
  writeFileSync(directory, '');
  expect(await problem()).toBe('.: what cannot be read (ENOTDIR), a directory of readable files');
});

it('bounds files, their bytes, and the bytes of all', async () => {
  write('a.yaml', 'x'.repeat(policyLimits.fileBytes + 1));
  expect(await problem()).toBe(
    `./a.yaml: ${policyLimits.fileBytes + 1} bytes, at most ${policyLimits.fileBytes}`,
  );
  for (const name of ['a', 'b', 'c', 'd']) write(`${name}.yaml`, 'x'.repeat(policyLimits.fileBytes));
  expect((await read()).files).toHaveLength(4);
  write('e.yaml', 'x');
  expect(await problem()).toBe(
    `./e.yaml: more than ${policyLimits.bytes} bytes with the files before it, less`,
  );
  for (let i = 0; i <= policyLimits.files; i++) write(`${i}.yml`, '');
  expect(await problem()).toBe(`.: ${policyLimits.files + 6} files, at most ${policyLimits.files}`);
});
