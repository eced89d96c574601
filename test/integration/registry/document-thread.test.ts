import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { DocumentThread } from '../../../src/registry/document-thread.ts';
import { FileSource } from '../../../src/registry/file-source.ts';
import { setup as build } from '../../support/build.ts';
import { context, quiet } from '../../unit/registry/source.conformance.ts';

const soon = { timeout: 30_000, interval: 10 };
const bytes = (text: string) => Uint8Array.from(Buffer.from(text));

// The thread runs what is built.
beforeAll(build, 240_000);

describe('a thread that reads files', () => {
  const refusal = (mistake: string) => expect.objectContaining({ mistakes: [mistake] });

  test('hands back every piece, in order', async () => {
    const thread = new DocumentThread();
    const services = Array.from({ length: 2500 }, (_, i) => ({
      name: `s-${i}`,
      instances: [{ address: `10.0.${i >> 8}.${i & 255}:1`, labels: { v: '1' } }],
    }));
    const nodes = [{ name: 'n', zone: 'z', tunnel: '10.0.0.1:15008' }];
    const document = await thread.read(bytes(JSON.stringify({ services, nodes })));
    expect(document.services.map(({ name }) => name)).toEqual(services.map(({ name }) => name));
    expect(document.services[300]!.instances[0]).toMatchObject({ address: { port: 1 }, labels: { v: '1' } });
    expect(document.nodes).toHaveLength(1);
    await thread.close();
  });

  test('says what is wrong, and goes on with the next file', async () => {
    const thread = new DocumentThread();
    await expect(thread.read(bytes('services: 3'))).rejects.toEqual(
      refusal('1:11: services: found 3; expected array'),
    );
    expect(thread.running).toBe(true);
    expect(await thread.read(bytes('services: []'))).toEqual({ services: [], nodes: [] });
    await thread.close();
    expect(thread.running).toBe(false);
  });

  test('is ended at its bound on time; the next file has a new one', async () => {
    const stuck = new URL('data:text/javascript,setInterval(() => {}, 1000)');
    const thread = new DocumentThread({ program: stuck, bounds: { deadline: 20 } });
    for (let file = 0; file < 2; file++) {
      await expect(thread.read(bytes('services: []'))).rejects.toEqual(
        refusal('1:1: found content that takes longer than 20 ms to read'),
      );
      expect(thread.running).toBe(false);
    }
  });

  test('is ended at its bound on memory', async () => {
    const thread = new DocumentThread({ bounds: { heapMiB: 32 } });
    await expect(thread.read(bytes('a: b\n'.repeat(200_000)))).rejects.toEqual(
      refusal('1:1: found content that needs more than 32 MiB to read'),
    );
    expect(await thread.read(bytes('services: []'))).toEqual({ services: [], nodes: [] });
    await thread.close();
  });

  test('ends when it is idle, and begins anew', async () => {
    const thread = new DocumentThread({ bounds: { idle: 1 } });
    await thread.read(bytes('services: []'));
    await vi.waitFor(() => expect(thread.running).toBe(false), soon);
    expect(await thread.read(bytes('services: []'))).toEqual({ services: [], nodes: [] });
    await thread.close();
  });
});

describe('a directory with a hostile file', () => {
  let root: string;
  let catalogue: Catalogue;
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), 'mnreg-'));
    mkdirSync(join(root, 'catalogue.d'));
  });
  afterAll(async () => {
    await catalogue.stop();
    rmSync(root, { recursive: true });
  });

  test('serves the other files, and says why', async () => {
    const directory = join(root, 'catalogue.d');
    writeFileSync(join(directory, 'a.yaml'), 'services: [{name: a}]');
    writeFileSync(join(directory, 'b.yaml'), 'a: b\n'.repeat(10_000_000));
    writeFileSync(join(directory, 'c.yaml'), `[${'[],'.repeat(1_200_000)}]`);
    writeFileSync(
      join(directory, 'd.yaml'),
      Array.from({ length: 200_000 }, (_, i) => `k${i}: b\n`).join(''),
    );
    catalogue = new Catalogue([new FileSource({ directory, context })], quiet);
    catalogue.start();
    await vi.waitFor(() => expect(catalogue.status.registries[0]!.state).toBe('synced'), soon);
    const { problems, services } = catalogue.status.registries[0]!;
    expect(services).toBe(1);
    expect(problems[0]).toBe('b.yaml:1:1: found more than 4194304 bytes');
    expect(problems[1]).toBe('c.yaml:1:1: found more than 1750000 pieces of YAML');
    expect(problems[2]).toMatch(/^d\.yaml:1:1: .*found an unknown key/);
  });
});
