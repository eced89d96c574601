import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { FileTier } from '../../../src/cache/file-tier.ts';
import { type StoredAnswer, Tiers } from '../../../src/cache/tiers.ts';
import { MeshError } from '../../../src/model/errors.ts';

const log = { info: () => undefined, warn: () => undefined };
const times = {
  freshFor: 30_000,
  staleFor: 600_000,
  negativeFor: 5_000,
  lookupTimeout: 500,
  memoryEntries: 3,
};

let ask = vi.fn<(question: string, signal: AbortSignal) => Promise<string | undefined>>();
const tiers = (file?: FileTier<StoredAnswer<string>>) =>
  new Tiers<string, string>({ ...times, keyOf: (q) => q, ask, ...(file === undefined ? {} : { file }) });

beforeEach(() => {
  ask = vi.fn(async (question) => `answer to ${question}`);
  vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'] });
});
afterEach(() => vi.useRealTimers());

test('a fresh answer is used as it is', async () => {
  const t = tiers();
  expect(await t.resolve('q')).toEqual({ value: 'answer to q', tier: 'registry', age: 0, expired: false });
  vi.advanceTimersByTime(29_999);
  expect(await t.resolve('q')).toEqual({ value: 'answer to q', tier: 'memory', age: 29_999, expired: false });
  expect(ask).toHaveBeenCalledTimes(1);
});

test('a stale answer is used at once and renewed once in the background', async () => {
  const t = tiers();
  await t.resolve('q');
  vi.advanceTimersByTime(30_000);
  ask.mockImplementation(async () => 'new');
  const both = await Promise.all([t.resolve('q'), t.resolve('q'), t.resolve('q')]);
  expect(both.map((r) => r.value)).toEqual(['answer to q', 'answer to q', 'answer to q']);
  expect(ask).toHaveBeenCalledTimes(2);
  await vi.waitFor(async () => expect((await t.resolve('q')).value).toBe('new'), { timeout: 20_000 });
});

test('equal questions at the same time are asked once', async () => {
  const t = tiers();
  await Promise.all(Array.from({ length: 100 }, () => t.resolve('q')));
  expect(ask).toHaveBeenCalledTimes(1);
});

test('"nobody knows" is remembered for its own time, and never longer', async () => {
  const t = tiers();
  ask.mockImplementation(async () => undefined);
  expect((await t.resolve('q')).value).toBeUndefined();
  vi.advanceTimersByTime(4_999);
  expect(await t.resolve('q')).toMatchObject({ value: undefined, tier: 'memory' });
  vi.advanceTimersByTime(1);
  ask.mockImplementation(async () => 'now');
  expect((await t.resolve('q')).value).toBe('now');
});

test('a failing registry takes no answer away, however old', async () => {
  const t = tiers();
  await t.resolve('q');
  ask.mockRejectedValue(new Error('down'));
  vi.advanceTimersByTime(31_000);
  expect(await t.resolve('q')).toMatchObject({ value: 'answer to q', expired: false });
  vi.advanceTimersByTime(86_400_000);
  expect(await t.resolve('q')).toMatchObject({
    value: 'answer to q',
    tier: 'memory',
    age: 86_431_000,
    expired: true,
  });
});

test('what nobody ever knew rejects while the registry is down, and is asked again', async () => {
  const t = tiers();
  ask.mockRejectedValueOnce(new Error('down'));
  await expect(t.resolve('q')).rejects.toMatchObject({ name: 'MeshError', code: 'registry', retry: 'safe' });
  expect((await t.resolve('q')).value).toBe('answer to q');
});

test('a registry that never answers, and ignores its signal, is bounded', async () => {
  const t = tiers();
  let signal: AbortSignal | undefined;
  ask.mockImplementation((_question, given) => {
    signal = given;
    return new Promise(() => undefined);
  });
  const answer = t.resolve('q');
  const caught = expect(answer).rejects.toMatchObject({ code: 'timeout' });
  await vi.advanceTimersByTimeAsync(500);
  await caught;
  expect(signal?.aborted).toBe(true);
});

test('questions in flight are bounded', async () => {
  const t = tiers();
  ask.mockImplementation(() => new Promise(() => undefined));
  const waiting = Array.from({ length: 1024 }, (_, i) =>
    t.resolve(`q${i}`).catch((error: MeshError) => error.code),
  );
  await expect(t.resolve('one more')).rejects.toMatchObject({ code: 'overload' });
  await vi.advanceTimersByTimeAsync(500);
  expect(new Set(await Promise.all(waiting))).toEqual(new Set(['timeout']));
});

test('the answer used longest ago makes room', async () => {
  const t = tiers();
  for (const q of ['a', 'b', 'c', 'd']) await t.resolve(q);
  await t.resolve('d');
  expect(ask).toHaveBeenCalledTimes(4);
  await t.resolve('a');
  expect(ask).toHaveBeenCalledTimes(5);
});

test('a clock that was set back makes no answer fresh for years', async () => {
  const t = tiers();
  await t.resolve('q');
  vi.setSystemTime(Date.now() - 1_000_000);
  await t.resolve('q');
  expect(ask).toHaveBeenCalledTimes(2);
});

test('answers survive a restart in the file tier, and serve when every registry is gone', async () => {
  vi.useRealTimers();
  const directory = mkdtempSync(join(tmpdir(), 'mnreg-'));
  try {
    const check = (record: unknown) => record as StoredAnswer<string>;
    const file = () => new FileTier({ path: join(directory, 'answers'), writeDelay: 1, check, log });
    const first = file();
    const before = tiers(first);
    await before.load();
    await before.resolve('q');
    await before.resolve('r');
    await first.flush();

    ask.mockRejectedValue(new MeshError('registry', 'registry', 'gone'));
    const after = tiers(file());
    await after.load();
    expect(await after.resolve('q')).toMatchObject({ value: 'answer to q', tier: 'file' });
    vi.useFakeTimers({ toFake: ['Date'] });
    vi.setSystemTime(Date.now() + 86_400_000);
    expect(await after.resolve('r')).toMatchObject({ value: 'answer to r', tier: 'file', expired: true });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
