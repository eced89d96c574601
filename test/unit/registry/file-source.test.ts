import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { MAX_FILE_BYTES } from '../../../src/registry/document-reader.ts';
import { FileSource } from '../../../src/registry/file-source.ts';
import type { SourceUpdate } from '../../../src/registry/source.ts';
import { inlineReader } from './inline-reader.ts';
import { context, quiet, type Rig, type Said, sourceConformance } from './source.conformance.ts';

const yaml = (services: readonly Said[]) =>
  JSON.stringify({
    services: services.map(({ name, instances }) => ({
      name,
      instances: instances.map(({ ip, port }) => ({ address: `${ip}:${port}` })),
    })),
  });

sourceConformance('a directory of YAML files', async (): Promise<Rig> => {
  const root = mkdtempSync(join(tmpdir(), 'mnreg-'));
  const directory = join(root, 'catalogue.d');
  const away = join(root, 'away');
  mkdirSync(directory);
  let current = directory;
  return {
    say: async (services) => {
      rmSync(join(current, 'bad.yaml'), { force: true });
      writeFileSync(join(root, 'fresh'), yaml(services));
      renameSync(join(root, 'fresh'), join(current, 'all.yaml'));
    },
    sayNonsense: async () => writeFileSync(join(current, 'bad.yaml'), 'services: [{ name: Bad Name }]'),
    cutOff: async () => {
      renameSync(directory, away);
      current = away;
    },
    comeBack: async () => {
      renameSync(away, directory);
      current = directory;
    },
    close: async () => rmSync(root, { recursive: true }),
    source: () => new FileSource({ directory, context, reader: inlineReader }),
  };
});

describe('the file source', () => {
  let root: string;
  let directory: string;
  let catalogue: Catalogue;
  const soon = { timeout: 10_000, interval: 10 };
  const write = (name: string, text: string) => writeFileSync(join(directory, name), text);
  const rename = (name: string, text: string) => {
    writeFileSync(join(root, 'fresh'), text);
    renameSync(join(root, 'fresh'), join(directory, name));
  };
  const names = () =>
    Array.from(catalogue.snapshot.services.values(), (service) => service.name as string).sort();
  const problems = () => catalogue.status.registries[0]!.problems;
  const start = () => {
    catalogue = new Catalogue([new FileSource({ directory, context, reader: inlineReader })], quiet);
    catalogue.start();
  };

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'mnreg-'));
    directory = join(root, 'catalogue.d');
    mkdirSync(directory);
  });
  afterEach(async () => {
    await catalogue.stop();
    rmSync(root, { recursive: true, force: true });
  });

  test('zones come from nodes, also of another file; then from this host', async () => {
    write(
      'a.yaml',
      'services: [{name: s, instances: [{address: "10.0.0.1:1", node: n}, {address: "10.0.0.2:1"}, {address: "10.0.0.3:1", node: n, zone: own}]}]',
    );
    write('b.yaml', 'nodes: [{name: n, zone: far, tunnel: "10.0.0.1:15008"}]');
    start();
    await vi.waitFor(() => expect(names()).toEqual(['s']), soon);
    const service = [...catalogue.snapshot.services.values()][0]!;
    expect(service.instances.map((instance) => instance.zone)).toEqual(['far', 'here', 'own']);
    write('b.yaml', 'nodes: [{name: n, zone: near, tunnel: "10.0.0.1:15008"}]');
    await vi.waitFor(() => {
      const now = [...catalogue.snapshot.services.values()][0]!;
      expect(now.instances.map((instance) => instance.zone)).toEqual(['near', 'here', 'own']);
    }, soon);
  });

  test('a deleted file removes its services, the last one too', async () => {
    write('a.yaml', 'services: [{name: a}]');
    write('b.yaml', 'services: [{name: b}]');
    start();
    await vi.waitFor(() => expect(names()).toEqual(['a', 'b']), soon);
    rmSync(join(directory, 'a.yaml'));
    await vi.waitFor(() => expect(names()).toEqual(['b']), soon);
    rmSync(join(directory, 'b.yaml'));
    await vi.waitFor(() => expect(names()).toEqual([]), soon);
  });

  test('a broken file keeps its last good content, with line and column', async () => {
    write('a.yaml', 'services: [{name: a}]');
    write('b.yaml', 'services: [{name: b}]');
    start();
    await vi.waitFor(() => expect(names()).toEqual(['a', 'b']), soon);
    write('a.yaml', 'services:\n  - name: a2\n    colour: blue\n');
    write('b.yaml', 'services: [{name: b2}]');
    await vi.waitFor(() => expect(names()).toEqual(['a', 'b2']), soon);
    await vi.waitFor(
      () =>
        expect(problems()).toEqual([
          expect.stringMatching(
            /^a\.yaml:3:5: services\[0]\.colour: found an unknown key; expected one of: name, /,
          ),
        ]),
      soon,
    );
  });

  test('a file that was truncated is not believed', async () => {
    write('a.yaml', 'services: [{name: a}]');
    start();
    await vi.waitFor(() => expect(names()).toEqual(['a']), soon);
    write('a.yaml', '');
    await vi.waitFor(() => expect(problems()).toHaveLength(1), soon);
    expect(names()).toEqual(['a']);
  });

  test('an empty directory at the first look is not believed; a file that says "none" is', async () => {
    start();
    await vi.waitFor(() => expect(catalogue.status.registries[0]!.state).toBe('unreachable'), soon);
    write('none.yaml', 'services: []');
    await vi.waitFor(() => expect(catalogue.status.registries[0]!.state).toBe('synced'), soon);
  });

  test('an unmounted directory removes nothing', async () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', directory]);
    let mounted = true;
    try {
      write('a.yaml', 'services: [{name: a}]');
      start();
      await vi.waitFor(() => expect(names()).toEqual(['a']), soon);
      execFileSync('umount', ['-l', directory]);
      mounted = false;
      await vi.waitFor(() => expect(catalogue.status.registries[0]!.state).toBe('unreachable'), soon);
      expect(names()).toEqual(['a']);
    } finally {
      if (mounted) execFileSync('umount', ['-l', directory]);
    }
  });

  test('the first file that names a service wins; the other is reported', async () => {
    write('a.yaml', 'services: [{name: s, protocol: http}]');
    write('b.yaml', 'services: [{name: s, protocol: tcp}]');
    start();
    await vi.waitFor(() => expect(names()).toEqual(['s']), soon);
    expect([...catalogue.snapshot.services.values()][0]!.protocol).toBe('http');
    await vi.waitFor(
      () => expect(problems()).toEqual(['b.yaml: service s is also in a.yaml, which is used']),
      soon,
    );
  });

  test('other files, hidden files and directories do not matter', async () => {
    write('a.yaml', 'services: [{name: a}]');
    write('.b.yaml', 'services: [{name: b}]');
    write('c.yaml~', 'services: [{name: c}]');
    mkdirSync(join(directory, 'sub'));
    start();
    await vi.waitFor(() => expect(names()).toEqual(['a']), soon);
    expect(problems()).toEqual([]);
  });

  test('a file that was never good keeps what the cache remembers beside what is said', async () => {
    write('a.yaml', 'services: [{name: a}]');
    write('b.yaml', 'services: [{name: b}]');
    start();
    await vi.waitFor(() => expect(names()).toEqual(['a', 'b']), soon);
    const remembered = [...catalogue.records()];
    await catalogue.stop();
    write('b.yaml', 'services: [');
    catalogue = new Catalogue([new FileSource({ directory, context, reader: inlineReader })], quiet);
    catalogue.seed(remembered);
    catalogue.start();
    await vi.waitFor(() => expect(catalogue.status.registries[0]!.state).toBe('synced'), soon);
    expect(names()).toEqual(['a', 'b']);
    write('b.yaml', 'services: []');
    await vi.waitFor(() => expect(names()).toEqual(['a']), soon);
  });

  test('one edited file is told as a change of what is different in it', async () => {
    write('a.yaml', 'services: [{name: a}, {name: a2}]\nnodes: [{name: n, zone: z, tunnel: "10.0.0.1:1"}]');
    write('b.yaml', 'services: [{name: b}, {name: b2}]');
    start();
    await vi.waitFor(() => expect(catalogue.status.registries[0]!.state).toBe('synced'), soon);
    await catalogue.stop();
    const source = new FileSource({ directory, context, reader: inlineReader });
    catalogue = new Catalogue([source], quiet);
    const told: SourceUpdate[] = [];
    source.start({ update: (update) => told.push(update), status: () => undefined });
    try {
      await vi.waitFor(() => expect(source.status.state).toBe('synced'), soon);
      expect(told.map(({ kind }) => kind)).toEqual(['change', 'full']);
      rename('b.yaml', 'services: [{name: b, protocol: http}]');
      await vi.waitFor(() => expect(told).toHaveLength(3), soon);
      expect(told[2]).toMatchObject({ kind: 'change', removedServices: ['b2'], nodes: [], removedNodes: [] });
      expect(told[2]!.services.map(({ name }) => name)).toEqual(['b']);
    } finally {
      await source.stop();
    }
  });

  test('the reason of a failure goes with it', async () => {
    start();
    await vi.waitFor(() => expect(catalogue.status.registries[0]!.lastError).toMatch(/mounted/), soon);
    write('a.yaml', 'services: []');
    await vi.waitFor(() => expect(catalogue.status.registries[0]!.state).toBe('synced'), soon);
    expect(catalogue.status.registries[0]!.lastError).toBeUndefined();
  });

  test('a pipe and a file that is too large are reported, and hold nothing up', async () => {
    write('a.yaml', 'services: [{name: a}]');
    execFileSync('mkfifo', [join(directory, 'b.yaml')]);
    write('c.yaml', ' '.repeat(MAX_FILE_BYTES + 1));
    start();
    await vi.waitFor(() => expect(names()).toEqual(['a']), soon);
    await vi.waitFor(
      () =>
        expect(problems()).toEqual([
          'b.yaml:1:1: found no regular file',
          `c.yaml:1:1: found more than ${MAX_FILE_BYTES} bytes`,
        ]),
      soon,
    );
  });
});
