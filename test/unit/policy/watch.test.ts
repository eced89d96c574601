import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { type PolicyReading, readPolicies } from '../../../src/policy/reading.ts';
import { PolicyWatch } from '../../../src/policy/watch.ts';

const soon = { timeout: 10_000, interval: 5 };

let base: string;
let directory: string;
let told: string[];
let watch: PolicyWatch;
/** How often the reader does not come to the end. */
let failures: number;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'mesh-policies-'));
  directory = join(base, 'policies.d');
  mkdirSync(directory);
  told = [];
  failures = 0;
  const reader = {
    read: async (files: Parameters<typeof readPolicies>[0]): Promise<PolicyReading> => {
      if (failures-- <= 0) return readPolicies(files);
      return { problems: [{ origin: '', path: '', found: 'no time', expected: 'less' }], unread: true };
    },
    close: async () => {},
  };
  watch = new PolicyWatch(directory, reader, {
    changed: ({ policies }, files) =>
      told.push(`${files.length} files: ${Object.keys(policies.services).join(' ')}`),
    refused: (problems) => told.push(`refused ${problems.join('; ').replaceAll(directory, '.')}`),
    missing: () => told.push('missing'),
    warned: (warnings) => told.push(`warned ${warnings.length}`),
  });
});
afterEach(async () => {
  await watch.stop();
  rmSync(base, { recursive: true });
});

/** Puts a file in place at once, as docs/operations.md advises. */
function put(name: string, text: string): void {
  writeFileSync(join(directory, `.${name}`), text, { mode: 0o644 });
  renameSync(join(directory, `.${name}`), join(directory, name));
}

const last = (text: string) => vi.waitFor(() => expect(told.at(-1)).toBe(text), soon);

it('tells of each change once, and of nothing when nothing changed', async () => {
  await watch.start();
  expect(told).toEqual(['0 files: ']);
  put('a.yaml', 'service: web\nhops: two');
  await last('1 files: web');
  put('b.yaml', 'service: api\nhops: two');
  await last('2 files: web api');
  rmSync(join(directory, 'a.yaml'));
  await last('1 files: api');
  put('b.yaml', 'service: api\nhops: two');
  await watch.look();
  await watch.look();
  expect(told).toHaveLength(4);
});

it('keeps what was told when something is wrong, says so once, and when it is right again', async () => {
  put('a.yaml', 'service: web\nhops: two');
  await watch.start();
  put('b.yaml', 'service: api\nhops: one');
  const refusal = 'refused ./b.yaml:2:7: hops: found text "one", expected two or three';
  await last(refusal);
  await watch.look();
  put('c.yaml', 'service: other\nhops: two');
  await watch.look();
  expect(told).toEqual(['1 files: web', refusal]);
  rmSync(join(directory, 'b.yaml'));
  rmSync(join(directory, 'c.yaml'));
  await last('1 files: web');
});

it('notices a directory that goes and comes, and a link that is put elsewhere', async () => {
  const [one, two] = [join(base, 'one'), join(base, 'two')];
  for (const [at, name] of [
    [one, 'web'],
    [two, 'api'],
  ] as const) {
    mkdirSync(at);
    writeFileSync(join(at, 'a.yaml'), `service: ${name}\nhops: two`, { mode: 0o644 });
  }
  rmSync(directory, { recursive: true });
  await watch.start();
  expect(told).toEqual(['missing']);
  symlinkSync(one, directory);
  await last('1 files: web');
  symlinkSync(two, `${directory}.new`);
  renameSync(`${directory}.new`, directory);
  await last('1 files: api');
  writeFileSync(join(two, 'a.yaml'), 'service: third\nhops: two');
  await last('1 files: third');
  rmSync(directory);
  await last('missing');
});

it('reads again, without a change, what was not read to its end', async () => {
  put('a.yaml', 'service: web\nhops: two');
  failures = 1;
  await watch.start();
  expect(told).toEqual([expect.stringMatching(/^refused .*no time/)]);
  await last('1 files: web');
});

it('warns, and no longer when it is put right', async () => {
  writeFileSync(join(directory, 'a.yaml'), 'service: web\nhops: two');
  const { chmodSync } = await import('node:fs');
  chmodSync(join(directory, 'a.yaml'), 0o646);
  await watch.start();
  expect(told).toEqual(['warned 1', '1 files: web']);
  chmodSync(join(directory, 'a.yaml'), 0o644);
  await last('warned 0');
});

it('says nothing after its end', async () => {
  await watch.start();
  const looking = watch.look();
  await watch.stop();
  await looking;
  put('a.yaml', 'service: web\nhops: two');
  await watch.look();
  expect(told).toEqual(['0 files: ']);
});
