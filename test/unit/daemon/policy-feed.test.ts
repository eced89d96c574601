import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { PolicyFeed } from '../../../src/daemon/supervisor/policy-feed.ts';
import { PolicyStore } from '../../../src/daemon/supervisor/policy-store.ts';
import type { PolicySet } from '../../../src/model/policy.ts';
import { readPolicies } from '../../../src/policy/reading.ts';
import type { Log } from '../../../src/telemetry/log.ts';

const good = 'service: web\naccess: {rules: [{allow: "service:shop"}]}\n';
const bad = `${good}hops: one\n`;

let base: string;
let directory: string;
let published: PolicySet[];
let events: string[];
let blocked: (string | undefined)[];
let feed: PolicyFeed;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'mesh-policies-'));
  directory = join(base, 'policies.d');
  mkdirSync(directory);
});
afterEach(async () => {
  await feed.stop();
  rmSync(base, { recursive: true });
});

/** An agent that starts, after the one before has ended. */
async function start(): Promise<void> {
  published = [];
  blocked = [];
  events = [];
  const quiet = () => {};
  const log = { info: quiet, warn: quiet, error: quiet } as unknown as Log;
  feed = new PolicyFeed({
    ...{ directory, log, store: new PolicyStore(join(base, 'state'), log) },
    reader: { read: async (files) => readPolicies(files), close: async () => {} },
    publish: (policies) => published.push(policies),
    onEvent: (text) => events.push(text.replaceAll(directory, '.')),
    onBlocked: (reason) => blocked.push(reason),
  });
  await feed.start();
}

async function write(text: string | undefined, name = 'a.yaml'): Promise<void> {
  if (text === undefined) rmSync(join(directory, name));
  else writeFileSync(join(directory, name), text, { mode: 0o644 });
  await feed.reload();
}

it('publishes each set with the next version', async () => {
  await start();
  expect(published).toEqual([]);
  expect(feed.status).toMatchObject({ version: 0, source: 'directory', services: 0, refused: [] });
  await write(good);
  await write('service: api\nhops: two', 'b.yaml');
  expect(published.map(({ version, services }) => [version, Object.keys(services)])).toEqual([
    [1, ['web']],
    [2, ['web', 'api']],
  ]);
  expect(feed.current).toBe(published[1]);
  expect(feed.origins['api']).toEqual({ hops: `${join(directory, 'b.yaml')}:2` });
  await write(undefined);
  await write(undefined, 'b.yaml');
  expect(feed.current).toEqual({ version: 4, common: {}, services: {} });
});

it('keeps the last good set while something is wrong', async () => {
  await start();
  await write(good);
  await write(bad);
  expect(feed.status).toMatchObject({ version: 1, source: 'directory', services: 1 });
  expect(feed.status.refused[0]).toContain(`${join(directory, 'a.yaml')}:3:7: hops: found text "one"`);
  expect(blocked.at(-1)).toBeUndefined();
  await write(good);
  expect(feed.status).toMatchObject({ version: 1, refused: [] });
  expect(published).toHaveLength(1);
  expect(events).toEqual([
    'version 1 is in force: 1 files, 1 services',
    'refused, version 1 stays: ./a.yaml:3:7: hops: found text "one", expected two or three',
    'version 1 is in force: 1 files, 1 services',
  ]);
});

it('goes on after a restart where it was', async () => {
  await start();
  await write(good);
  await write(`${good}# again`);
  await feed.stop();
  await start();
  expect(published.map(({ version }) => version)).toEqual([2]);
  await feed.stop();
  writeFileSync(join(directory, 'a.yaml'), good);
  await start();
  expect(published.map(({ version }) => version)).toEqual([3]);
});

it.each(['bad', 'gone'])(
  'does not start open when the documents are %s: those of the last run hold',
  async (how) => {
    await start();
    await write(good);
    await feed.stop();
    if (how === 'bad') writeFileSync(join(directory, 'a.yaml'), bad);
    else rmSync(directory, { recursive: true });
    await start();
    expect(feed.status).toMatchObject({ version: 1, source: 'kept', services: 1 });
    expect(feed.status.refused).toHaveLength(1);
    expect(published[0]?.services['web']?.access?.otherwise).toBe('deny');
    expect(blocked.at(-1)).toBeUndefined();
    // And still, after one more.
    await feed.stop();
    await start();
    expect(feed.status).toMatchObject({ version: 1, source: 'kept' });
    if (how === 'gone') mkdirSync(directory);
    await write(good);
    expect(feed.status).toMatchObject({ version: 1, source: 'directory', refused: [] });
    expect(published).toHaveLength(1);
  },
);

it('is blocked without a set, until there is one', async () => {
  mkdirSync(join(base, 'state'));
  writeFileSync(join(directory, 'a.yaml'), bad);
  await start();
  expect(feed.status).toMatchObject({ version: 0, source: 'none' });
  expect(blocked.at(-1)).toMatch(/^no policies are in force: .*a\.yaml:3:7: /);
  await write(good);
  expect(blocked.at(-1)).toBeUndefined();
  expect(feed.status).toMatchObject({ version: 1, source: 'directory' });
});

it('does not believe half of what was kept', async () => {
  await start();
  await write(good);
  await feed.stop();
  const file = join(base, 'state', 'policies.cache');
  const bytes = readFileSync(file);
  writeFileSync(file, bytes.fill(0, bytes.length - 9));
  writeFileSync(join(directory, 'a.yaml'), bad);
  await start();
  expect(feed.status).toMatchObject({ version: 0, source: 'none' });
});

it('has none where the directory never was', async () => {
  rmSync(directory, { recursive: true });
  await start();
  expect(feed.status).toMatchObject({ version: 0, refused: [] });
  expect(blocked.at(-1)).toBeUndefined();
  mkdirSync(directory);
  await write(good);
  await vi.waitFor(() => expect(feed.status.version).toBe(1), { timeout: 10_000 });
});
