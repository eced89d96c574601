import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { parseAllowList } from '../../../src/capture/allow-list.ts';
import type { Exemptions } from '../../../src/capture/exemptions.ts';
import { ExemptionWatch } from '../../../src/daemon/supervisor/exemptions.ts';
import { Passwd } from '../../../src/io/passwd.ts';
import type { Ip } from '../../../src/model/address.ts';

const list = (...lines: string[]) => parseAllowList(lines.join('\n')).entries;

describe('ExemptionWatch', () => {
  let directory: string;
  let passwd: string;
  let told: Exemptions[];
  let named: number;
  let warned: string[];
  let watch: ExemptionWatch;
  /** What the resolver says: addresses, or why it has none; nothing while it has not answered. */
  let answers: Map<string, readonly Ip[] | string>;
  let asked: readonly string[];
  let answered: () => void;

  function start(patienceMs: number): void {
    watch = new ExemptionWatch({
      follow: (changed) => {
        answered = changed;
        return {
          set: (names) => {
            asked = [...names];
          },
          addresses: (name) => {
            const answer = answers.get(name);
            return typeof answer === 'object' ? answer : [];
          },
          problem: (name) => {
            const answer = answers.get(name);
            return typeof answer === 'string' ? answer : undefined;
          },
          close: () => {
            asked = [];
          },
        };
      },
      patienceMs,
      log: { info: () => undefined, warn: ({ problem }: { problem?: string }) => warned.push(problem ?? '') },
      changed: (exemptions) => told.push(exemptions),
      callersChanged: () => named++,
      passwd: new Passwd(passwd),
    });
  }

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'mnal-ex-'));
    passwd = join(directory, 'passwd');
    writeFileSync(passwd, 'root:x:0:0::/:/bin/sh\n');
    told = [];
    warned = [];
    named = 0;
    answers = new Map();
    start(60_000);
  });
  afterEach(() => {
    watch.stop();
    rmSync(directory, { recursive: true });
  });

  it('holds the first list back until its host names had an answer, good or bad', () => {
    watch.setOnly({ users: [], units: [] });
    watch.setList(list('10.0.0.1', 'a.example.com', 'b.example.com'));
    expect([told, asked]).toEqual([[], ['a.example.com', 'b.example.com']]);
    answers.set('a.example.com', ['10.0.0.2' as Ip]);
    answered();
    expect(told).toEqual([]);
    answers.set('b.example.com', 'ENOTFOUND');
    answered();
    expect(told).toHaveLength(1);
    expect(told[0]!.exempt).toHaveLength(2);
    expect(warned).toEqual(['b.example.com: ENOTFOUND']);
    // Later ones are not: what stands goes on, and the new name is added when it is known.
    watch.setList(list('10.0.0.1', 'c.example.com'));
    expect(told.at(-1)!.exempt).toHaveLength(1);
    answers.set('c.example.com', ['fd00::1' as Ip]);
    answered();
    expect(told.at(-1)!.exempt).toHaveLength(2);
    answered();
    expect(told, 'the same is told once').toHaveLength(3);
  });

  it('does not wait for ever, and tells of an empty list, too', async () => {
    watch.stop();
    start(10);
    watch.setList(list('10.0.0.1', 'slow.example.com'));
    await vi.waitFor(() => expect(told).toHaveLength(1), { timeout: 10_000 });
    expect(told[0]!.exempt).toHaveLength(1);
    watch.stop();
    told = [];
    start(60_000);
    watch.setList([]);
    expect(told).toEqual([{ exempt: [], only: undefined, problems: [], waiting: [] }]);
  });

  it('follows /etc/passwd, and names callers for those who know them by name', async () => {
    watch.setList(list('user:late', 'user:7', 'unit:a.service'));
    expect(told.at(-1)).toMatchObject({
      exempt: [{ uid: 7 }],
      problems: [expect.stringMatching(/^user:late/)],
    });
    expect(watch.callers).toEqual({ users: ['late', '7'], units: ['a.service'] });
    writeFileSync(passwd, 'late:x:1003:1003::/:/bin/sh\nseven:x:7:7::/:/bin/sh\n');
    await vi.waitFor(() => expect(told.at(-1)).toMatchObject({ exempt: [{ uid: 1003 }, { uid: 7 }] }), {
      timeout: 5000,
    });
    expect(told.at(-1)!.problems).toEqual([]);
    expect(watch.callers.users).toEqual(['late', '7', 'seven']);
    expect(named).toBe(2);
    watch.setOnly({ users: ['seven'], units: [] });
    expect(told.at(-1)!.only).toEqual({ uids: [7], cgroups: [] });
  });
});
