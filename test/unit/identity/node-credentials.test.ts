import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  initAuthority,
  issueNode,
  type NodeBundle,
  type NodeOptions,
  writeNodeBundle,
} from '../../../src/identity/authority.ts';
import {
  type CredentialTexts,
  NodeCredentials,
  readCredentials,
} from '../../../src/identity/node-credentials.ts';
import type { NodeName } from '../../../src/model/service.ts';

const base = mkdtempSync(join(tmpdir(), 'mesh-credentials-'));
const directory = join(base, 'node');
const paths = {
  authority: join(directory, 'ca.crt'),
  certificate: join(directory, 'node.crt'),
  key: join(directory, 'node.key'),
};
const options = { trustDomain: 'mesh', node: 'web1' as NodeName };
const grants = { callAs: ['*'], host: ['orders'], relay: false, days: 10 };

let bundle: NodeBundle;
const texts = (from: NodeBundle = bundle): CredentialTexts => ({
  key: from.key,
  cert: from.certificate,
  ca: from.ca,
});
const issue = (change: Partial<NodeOptions> = {}, ca = 'ca') =>
  issueNode(join(base, ca), { node: 'web1', ...grants, ...change });

beforeAll(async () => {
  await initAuthority(join(base, 'ca'), { trustDomain: 'mesh', days: 100 });
  await initAuthority(join(base, 'new-ca'), { trustDomain: 'mesh', days: 100 });
  await initAuthority(join(base, 'evil-ca'), { trustDomain: 'evil', days: 100 });
  bundle = await issue();
});
afterAll(() => rmSync(base, { recursive: true }));

describe('NodeCredentials', () => {
  test('says who this node is, and how long', () => {
    const credentials = new NodeCredentials(texts(), options);
    expect(credentials.current()).toEqual(texts());
    expect(credentials.current()).toBe(credentials.current());
    expect(credentials.identity).toMatchObject({ node: 'web1', relay: false });
    expect([...credentials.identity.host]).toEqual(['orders']);
    expect(credentials.expiresAt).toBe(bundle.expiresAt);
  });

  test('finds out what cannot work before anybody connects', async () => {
    const other = await issue();
    const foreign = await issue({}, 'evil-ca');
    const make = (change: Partial<CredentialTexts>, more: object = {}) =>
      new NodeCredentials({ ...texts(), ...change }, { ...options, ...more });
    expect(() => make({ key: other.key })).toThrow(/key does not belong/);
    expect(() => make({ ca: foreign.ca })).toThrow(/signed by none of the authorities/);
    expect(() => make(texts(foreign))).toThrow(/the node certificate belongs to trust domain "evil"/);
    expect(() => make({}, { node: 'web2' })).toThrow(/of node web1, and this node is web2/);
    expect(() => make({}, { now: () => bundle.expiresAt + 1 })).toThrow(
      /the node certificate of node web1 expired/,
    );
    expect(() => make({ key: 'nonsense' })).toThrow(/the node key cannot be read/);
    expect(() => make({ cert: 'nonsense' })).toThrow(/the node certificate cannot be read/);
    expect(() => make({ ca: 'nonsense' })).toThrow(/holds no certificate/);
    expect(() => make({ ca: bundle.certificate })).toThrow(/is no authority/);
    expect(() => make({ ca: bundle.ca.repeat(257) })).toThrow(/more than 256/);
  });

  test('believes several authorities while one replaces the other', async () => {
    const next = await issue({}, 'new-ca');
    const both = `# old\n${bundle.ca}\n# new\n${next.ca}`;
    const credentials = new NodeCredentials({ ...texts(), ca: both }, options);
    expect(credentials.replace({ ...texts(next), ca: both })).toBe(true);
    expect(credentials.current().cert).toBe(next.certificate);
  });

  test('keeps the old ones when the new ones are bad', async () => {
    const credentials = new NodeCredentials(texts(), options);
    const before = credentials.current();
    const other = await issue({ node: 'web2' });
    expect(() => credentials.replace(texts(other))).toThrow(/this node is web1/);
    expect(credentials.current()).toBe(before);
    expect(credentials.replace(texts())).toBe(false);
    const longer = await issue({ days: 20 });
    expect(credentials.replace(texts(longer))).toBe(true);
    expect(credentials.expiresAt).toBe(longer.expiresAt);
  });
});

describe('readCredentials', () => {
  test('reads what writeNodeBundle wrote, and again on reload', async () => {
    await writeNodeBundle(directory, bundle);
    const credentials = new NodeCredentials(await readCredentials(paths), options);
    expect(await credentials.reload(paths)).toBe(false);
    const next = await issue();
    await writeNodeBundle(directory, next, { overwrite: true });
    expect(await credentials.reload(paths)).toBe(true);
    expect(credentials.current()).toEqual(texts(next));
    writeFileSync(paths.certificate, bundle.certificate); // the key of another one
    await expect(credentials.reload(paths)).rejects.toThrow(/key does not belong/);
    expect(credentials.current()).toEqual(texts(next));
  });

  test('names the file and its mode when others may touch the key', async () => {
    for (const [mode, text] of [
      [0o640, '0640'],
      [0o604, '0604'],
      [0o620, '0620'],
    ] as const) {
      chmodSync(paths.key, mode);
      await expect(readCredentials(paths)).rejects.toMatchObject({
        code: 'configuration',
        source: 'operator',
        message: expect.stringMatching(`node key ${paths.key} has mode ${text}`),
      });
    }
    chmodSync(paths.key, 0o400);
    await expect(readCredentials(paths)).resolves.toBeDefined();
  });

  test('names what is missing or absurd', async () => {
    const missing = join(base, 'nowhere');
    await expect(readCredentials({ ...paths, certificate: missing })).rejects.toThrow(
      /node certificate .*nowhere cannot be read/,
    );
    const huge = join(base, 'huge');
    writeFileSync(huge, 'x'.repeat(1024 * 1024 + 1));
    await expect(readCredentials({ ...paths, authority: huge })).rejects.toThrow(/larger than/);
    await expect(readCredentials({ ...paths, authority: base })).rejects.toThrow(
      /authority bundle .* cannot be read/,
    );
    const pipe = join(base, 'pipe');
    execFileSync('mkfifo', ['-m', '600', pipe]);
    await expect(readCredentials({ ...paths, key: pipe })).rejects.toThrow(/node key .* it is not a file/);
  });
});
