import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Service } from '../../../src/model/service.ts';
import { emptySnapshot } from '../../../src/model/snapshot.ts';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import type { Source, SourceStatus, SourceUpdate } from '../../../src/registry/source.ts';

/** A service as every registry can say it. */
export interface Said {
  readonly name: string;
  readonly instances: readonly { readonly ip: string; readonly port: number }[];
}

/** A registry under test: its content is set, it is cut off and comes back, it says something broken. */
export interface Rig {
  /** Makes the registry say exactly this. */
  say(services: readonly Said[]): Promise<void>;
  /** Adds an entry that no reader can use; `say` removes it. */
  sayNonsense(): Promise<void>;
  cutOff(): Promise<void>;
  comeBack(): Promise<void>;
  close(): Promise<void>;
  source(): Source;
}

export const quiet = { info: () => undefined, warn: () => undefined };
export const context = { zone: 'here', balance: 'round-robin', log: quiet } as const;

const web: Said = { name: 'web', instances: [{ ip: '127.0.1.1', port: 80 }] };
const web2: Said = { name: 'web', instances: [...web.instances, { ip: '127.0.1.2', port: 80 }] };
const db: Said = { name: 'db', instances: [{ ip: '127.0.1.1', port: 5432 }] };

const soon = { timeout: 15_000, interval: 10 };

function said(services: Iterable<Service>): Record<string, string[]> {
  const entries = Array.from(
    services,
    ({ name, instances }) => [name, instances.map((i) => i.address)] as const,
  );
  return Object.fromEntries(
    entries.map(([name, addresses]) => [name, addresses.map(({ ip, port }) => `${ip}:${port}`).sort()]),
  );
}

/** What every source promises, whatever its registry is. */
export function sourceConformance(what: string, open: () => Promise<Rig>): void {
  describe(`${what} is a source`, { timeout: 60_000 }, () => {
    let rig: Rig;
    let source: Source;
    let catalogue: Catalogue;
    const states: string[] = [];

    beforeEach(async () => {
      rig = await open();
      source = rig.source();
      catalogue = new Catalogue([source], quiet);
      states.length = 0;
      catalogue.listen({ delta: () => undefined, status: (_name, status) => states.push(status.state) });
    });
    afterEach(async () => {
      await catalogue.stop();
      await rig.close();
    });

    const knows = (expected: Record<string, string[]>) =>
      vi.waitFor(() => expect(said(catalogue.snapshot.services.values())).toEqual(expected), soon);
    const is = (state: SourceStatus['state']) =>
      vi.waitFor(() => expect(source.status.state).toBe(state), soon);

    test('is connecting until its registry answered', async () => {
      expect(source.status).toMatchObject({ state: 'connecting', confirmedAt: undefined, problems: [] });
      await rig.say([web]);
      catalogue.start();
      await is('synced');
      expect(source.status.confirmedAt).toBeGreaterThanOrEqual(source.status.since - 1);
      expect(source.name).toBe(rig.source().name);
    });

    test('tells what is there, with defaults and in valid form', async () => {
      await rig.say([web2, db]);
      catalogue.start();
      await knows({ web: ['127.0.1.1:80', '127.0.1.2:80'], db: ['127.0.1.1:5432'] });
      const service = [...catalogue.snapshot.services.values()].find((s) => s.name === 'web')!;
      expect(service).toMatchObject({ protocol: 'auto', mode: 'permissive', interchangeable: false });
      expect(service.balance).toBe('round-robin');
      expect(service.instances[0]).toMatchObject({
        zone: 'here',
        weight: 100,
        draining: false,
        id: '127.0.1.1:80',
      });
    });

    test('follows additions, changes and removals', async () => {
      await rig.say([web]);
      catalogue.start();
      await knows({ web: ['127.0.1.1:80'] });
      await rig.say([web, db]);
      await knows({ web: ['127.0.1.1:80'], db: ['127.0.1.1:5432'] });
      await rig.say([web2, db]);
      await knows({ web: ['127.0.1.1:80', '127.0.1.2:80'], db: ['127.0.1.1:5432'] });
      await rig.say([web2]);
      await knows({ web: ['127.0.1.1:80', '127.0.1.2:80'] });
      await rig.say([web]);
      await knows({ web: ['127.0.1.1:80'] });
      expect(states).not.toContain('unreachable');
    });

    test('an unreachable registry removes nothing, and what changed meanwhile is noticed', async () => {
      await rig.say([web, db]);
      catalogue.start();
      await knows({ web: ['127.0.1.1:80'], db: ['127.0.1.1:5432'] });
      await rig.cutOff();
      await is('unreachable');
      expect(source.status.lastError).toBeTruthy();
      expect(said(catalogue.snapshot.services.values())).toEqual({
        web: ['127.0.1.1:80'],
        db: ['127.0.1.1:5432'],
      });
      await rig.say([web2]);
      await rig.comeBack();
      await knows({ web: ['127.0.1.1:80', '127.0.1.2:80'] });
      await is('synced');
    });

    test('a registry that is not there yet is waited for', async () => {
      await rig.say([web]);
      await rig.cutOff();
      catalogue.start();
      await is('unreachable');
      expect(catalogue.snapshot.version).toBe(0);
      await rig.comeBack();
      await knows({ web: ['127.0.1.1:80'] });
    });

    test('one bad entry is reported and costs nothing else', async () => {
      await rig.say([web, db]);
      catalogue.start();
      await knows({ web: ['127.0.1.1:80'], db: ['127.0.1.1:5432'] });
      await rig.sayNonsense();
      await vi.waitFor(() => expect(source.status.problems.length).toBeGreaterThan(0), soon);
      expect(source.status.state).toBe('synced');
      expect(said(catalogue.snapshot.services.values())).toEqual({
        web: ['127.0.1.1:80'],
        db: ['127.0.1.1:5432'],
      });
      await rig.say([web]);
      await vi.waitFor(() => expect(source.status.problems).toEqual([]), soon);
      await knows({ web: ['127.0.1.1:80'] });
    });

    test('says nothing after it was stopped, and stops while it connects', async () => {
      await rig.say([web]);
      const updates: SourceUpdate[] = [];
      const other = rig.source();
      other.start({ update: (update) => updates.push(update), status: () => undefined });
      await other.stop();
      await other.stop();
      const heard = updates.length;
      catalogue.start();
      await knows({ web: ['127.0.1.1:80'] });
      await catalogue.stop();
      await rig.say([db]);
      expect(said(catalogue.snapshot.services.values())).toEqual({ web: ['127.0.1.1:80'] });
      expect(updates).toHaveLength(heard);
    });

    test('on a cold boot with its registry gone, what the cache remembers is served until it answers', async () => {
      await rig.say([web, db]);
      catalogue.start();
      await knows({ web: ['127.0.1.1:80'], db: ['127.0.1.1:5432'] });
      const remembered = [...catalogue.records()];
      await catalogue.stop();
      await rig.cutOff();

      source = rig.source();
      catalogue = new Catalogue([source], quiet);
      catalogue.seed(remembered);
      catalogue.start();
      await is('unreachable');
      expect(catalogue.snapshot).not.toBe(emptySnapshot);
      expect(said(catalogue.snapshot.services.values())).toEqual({
        web: ['127.0.1.1:80'],
        db: ['127.0.1.1:5432'],
      });
      expect(catalogue.status.registries[0]).toMatchObject({ cached: true, services: 2 });
      await rig.say([web2]);
      await rig.comeBack();
      await knows({ web: ['127.0.1.1:80', '127.0.1.2:80'] });
      expect(catalogue.status.registries[0]).toMatchObject({ cached: false, services: 1 });
    });
  });
}
