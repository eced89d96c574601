import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { formatProblem } from '../../../src/config/problem.ts';
import { ThreadedReader } from '../../../src/policy/reader.ts';
import type { PolicyContent, PolicyFile } from '../../../src/policy/reading.ts';
import { PolicyWatch } from '../../../src/policy/watch.ts';
import { setup as build } from '../../support/build.ts';

// The thread runs what is built.
beforeAll(build, 240_000);

const files = (text: string): readonly PolicyFile[] => [
  { path: '/p/a.yaml', bytes: new Uint8Array(Buffer.from(text)) },
];

describe('a thread that reads policies', () => {
  const problems = async (reader: ThreadedReader, text: string) => {
    const reading = await reader.read(files(text));
    return 'problems' in reading ? reading.problems.map(formatProblem) : [];
  };

  test('hands back the set, or what is wrong, and ends when it is not needed', async () => {
    const reader = new ThreadedReader({ bounds: { idle: 20 } });
    expect(await reader.read(files('service: web\nhops: two'))).toEqual({
      policies: { common: {}, services: { web: { hops: 'two' } } },
      origins: { web: { hops: '/p/a.yaml:2' } },
    });
    expect(await problems(reader, 'service: web\nhops: one')).toEqual([
      '/p/a.yaml:2:7: hops: found text "one", expected two or three',
    ]);
    await vi.waitFor(() => expect(reader.running).toBe(false), { timeout: 10_000 });
    expect(await problems(reader, 'service: web\nhops: two')).toEqual([]);
    await reader.close();
  });

  test('is ended at its bounds on time and memory; the next set has a new one', async () => {
    const stuck = new URL('data:text/javascript,setInterval(() => {}, 1000)');
    const late = new ThreadedReader({ program: stuck, bounds: { deadline: 20 } });
    for (let turn = 0; turn < 2; turn++) {
      expect(await problems(late, 'service: web')).toEqual([
        '/p/a.yaml: found content that takes longer than 20 ms to read, expected less',
      ]);
      expect(late.running).toBe(false);
    }
    const small = new ThreadedReader({ bounds: { heapMiB: 24 } });
    expect(await problems(small, 'a: b\n'.repeat(200_000))).toEqual([
      '/p/a.yaml: found content that needs more than 24 MiB to read, expected less',
    ]);
    expect(await problems(small, 'service: web\nhops: two')).toEqual([]);
    await small.close();
  });
});

describe('a directory that changes all the time', () => {
  /** Sets of this many files, every one of which says which set it belongs to. */
  const SIZE = 8;
  const CHANGES = 150;
  let base: string;
  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), 'mesh-policies-'));
  });
  afterEach(() => rmSync(base, { recursive: true }));

  /** Which set each service belongs to. */
  const generations = ({ policies }: PolicyContent) =>
    Object.values(policies.services).map(({ timeouts }) => timeouts?.request);

  test('is seen as whole sets only, and in the end as it is', async () => {
    const directory = join(base, 'policies.d');
    const reader = new ThreadedReader();
    const seen: (number | undefined)[][] = [];
    const refused: string[] = [];
    const watch = new PolicyWatch(directory, reader, {
      changed: (content) => seen.push(generations(content)),
      refused: (problems) => refused.push(...problems),
      missing: () => refused.push('missing'),
      warned: () => {},
    });
    const put = (generation: number) => {
      const target = join(base, `set-${generation}`);
      mkdirSync(target);
      for (let i = 0; i < SIZE; i++)
        writeFileSync(join(target, `${i}.yaml`), `service: s${i}\ntimeouts: {request: ${generation}ms}\n`);
      symlinkSync(target, `${directory}.new`);
      renameSync(`${directory}.new`, directory);
      if (generation > 2) rmSync(join(base, `set-${generation - 2}`), { recursive: true });
    };
    put(1);
    await watch.start();
    for (let generation = 2; generation <= CHANGES; generation++) {
      put(generation);
      // Asked as often as it changes: `mesh-node reload` in a loop.
      void watch.look();
      // Now and then it rests for long enough to be read.
      await new Promise((resolve) => setTimeout(resolve, generation % 15 === 0 ? 60 : 3));
    }
    await watch.look();
    await watch.stop();
    // On a machine that is busy it may not rest long enough; nothing else is ever said of it.
    expect(refused.filter((problem) => !problem.includes('files that change all the time'))).toEqual([]);
    expect(seen.length).toBeGreaterThan(2);
    for (const set of seen) expect(set).toEqual(Array.from({ length: SIZE }, () => set[0]));
    expect(seen.at(-1)).toEqual(Array.from({ length: SIZE }, () => CHANGES));
  }, 60_000);
});
