import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { FileTier } from '../../../src/cache/file-tier.ts';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { type CatalogueRecord, parseCatalogueRecord } from '../../../src/registry/catalogue-record.ts';
import { createSource } from '../../../src/registry/create-source.ts';
import { FileSource } from '../../../src/registry/file-source.ts';
import { inlineReader } from '../../unit/registry/inline-reader.ts';
import { SerfAgent } from './serf-agents.ts';

const log = { info: () => undefined, warn: () => undefined };
const context = { zone: 'here', balance: 'round-robin', log } as const;
const soon = { timeout: 30_000, interval: 10 };

let root: string;
let agents: SerfAgent[] = [];
let catalogue: Catalogue;
let file: FileTier<CatalogueRecord>;

/** What a supervisor does at its start. */
async function boot(): Promise<void> {
  file = new FileTier({
    path: join(root, 'catalogue.cache'),
    writeDelay: 20,
    check: parseCatalogueRecord,
    log,
  });
  const serf = { type: 'serf', address: `127.0.0.1:${agents[0]!.rpcPort}`, authKeyFile: undefined } as const;
  catalogue = new Catalogue(
    [
      new FileSource({ directory: join(root, 'catalogue.d'), context, reader: inlineReader }),
      createSource({ ...serf, resyncInterval: 30_000, timeout: 1000 }, context),
    ],
    log,
  );
  const { records } = await file.load();
  catalogue.seed(records);
  catalogue.listen({ delta: () => undefined, changed: () => file.changed(() => catalogue.records()) });
  catalogue.start();
}
async function shutDown(): Promise<void> {
  await catalogue.stop();
  await file.flush();
}

const names = () =>
  Array.from(catalogue.snapshot.services.values(), (service) => service.name as string).sort();
const states = () => catalogue.status.registries.map((registry) => registry.state);

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'mnreg-'));
  mkdirSync(join(root, 'catalogue.d'));
  const written =
    'services: [{name: from-file, instances: [{address: "10.0.0.1:80", node: n}]}]\nnodes: [{name: n, zone: z, tunnel: "10.0.0.1:15008"}]';
  writeFileSync(join(root, 'catalogue.d', 'a.yaml'), written);
  const first = await SerfAgent.start('h1', '127.0.72.1', { services: 'from-serf:1', mesh: '2' });
  agents = [first, await SerfAgent.start('h2', '127.0.72.2', { services: 'from-serf:1' }, { join: [first] })];
});
afterEach(async () => {
  await shutDown();
  await Promise.all(agents.map((agent) => agent.kill()));
  rmSync(root, { recursive: true, force: true });
});

test('with every registry gone, a cold boot serves everything that was known', async () => {
  await boot();
  await vi.waitFor(() => {
    const serf = [...catalogue.snapshot.services.values()].find((service) => service.name === 'from-serf');
    expect(serf?.instances).toHaveLength(2);
    expect(names()).toEqual(['from-file', 'from-serf']);
  }, soon);
  const before = {
    services: new Map(catalogue.snapshot.services),
    nodes: new Map(catalogue.snapshot.nodes),
    destinations: new Map(catalogue.snapshot.destinations),
  };
  await shutDown();

  rmSync(join(root, 'catalogue.d'), { recursive: true });
  await Promise.all(agents.map((agent) => agent.kill()));
  await boot();
  // At once, before any registry was even tried.
  expect(new Map(catalogue.snapshot.services)).toEqual(before.services);
  await vi.waitFor(() => expect(states()).toEqual(['unreachable', 'unreachable']), soon);
  expect(new Map(catalogue.snapshot.services)).toEqual(before.services);
  expect(new Map(catalogue.snapshot.nodes)).toEqual(before.nodes);
  expect(new Map(catalogue.snapshot.destinations)).toEqual(before.destinations);
  for (const registry of catalogue.status.registries) expect(registry.cached).toBe(true);

  // A second cold boot, after a run that saw no registry, still knows it.
  await shutDown();
  await boot();
  expect(new Map(catalogue.snapshot.services)).toEqual(before.services);

  // One registry is back: its part is its own again, the other's stays.
  mkdirSync(join(root, 'catalogue.d'));
  writeFileSync(join(root, 'catalogue.d', 'b.yaml'), 'services: [{name: new-in-file}]');
  await vi.waitFor(() => expect(names()).toEqual(['from-serf', 'new-in-file']), soon);
  expect(catalogue.status.registries.map((registry) => registry.cached)).toEqual([false, true]);
});

test('a Serf agent that booted with the host and knows only itself takes nothing away', async () => {
  await boot();
  await vi.waitFor(() => expect(catalogue.snapshot.destinations.size).toBe(3), soon);
  await shutDown();
  await Promise.all(agents.map((agent) => agent.kill()));
  await agents[0]!.start({ services: 'from-serf:1', mesh: '2' });
  await boot();
  await vi.waitFor(() => expect(states()).toEqual(['synced', 'synced']), soon);
  expect(names()).toEqual(['from-file', 'from-serf']);
});

test('with a damaged cache file, registries carry on alone and a good file is written again', async () => {
  writeFileSync(join(root, 'catalogue.cache'), 'not a cache');
  await boot();
  await vi.waitFor(() => expect(names()).toEqual(['from-file', 'from-serf']), soon);
  await shutDown();
  expect(file.status.damaged).toBe(1);
  expect(readdirSync(root).filter((name) => name.includes('damaged'))).toHaveLength(1);
  rmSync(join(root, 'catalogue.d'), { recursive: true });
  await Promise.all(agents.map((agent) => agent.kill()));
  await boot();
  expect(names()).toEqual(['from-file', 'from-serf']);
});
