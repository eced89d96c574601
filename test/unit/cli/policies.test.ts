import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { adminSocket } from '../../../src/admin/api.ts';
import { type AdminServer, serveAdmin } from '../../../src/admin/server.ts';
import { runCli } from '../../../src/cli/program.ts';
import { FakeBackend } from '../../integration/admin/fake-backend.ts';

const base = mkdtempSync(join(tmpdir(), 'mncli-policies-'));
afterAll(() => rmSync(base, { recursive: true }));
const directory = join(base, 'policies.d');
const config = join(base, 'mesh-node.yaml');
writeFileSync(
  config,
  `daemon: {runtimeDirectory: ${base}}\ncapture: {allowList: ${base}/none}\npolicies: {directory: ${directory}}\n`,
);

beforeEach(() => mkdirSync(directory, { mode: 0o755 }));
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function write(path: string, text: string): string {
  writeFileSync(path, text, { mode: 0o644 });
  return path;
}

async function run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  let [out, err] = ['', ''];
  const code = await runCli(argv, '1.2.3', {
    env: { MESH_NODE_CONFIG: config },
    columns: undefined,
    stdout: (text) => {
      out += text;
    },
    stderr: (text) => {
      err += text;
    },
  });
  return { code, out, err };
}

describe('validate', () => {
  it('checks the directory that the configuration names', async () => {
    write(join(directory, 'a.yaml'), 'service: web\nhops: two');
    expect(await run('validate')).toMatchObject({ code: 0, out: `${config}: valid\n` });
    write(join(directory, 'b.yaml'), 'service: web\nhops: three');
    expect(await run('validate')).toMatchObject({
      code: 3,
      out: expect.stringContaining(
        `b.yaml:2:1: hops: found hops of web, which ${directory}/a.yaml:2 has already`,
      ),
      err: 'mesh-node: 1 problem\n',
    });
    rmSync(directory, { recursive: true });
    expect(await run('validate')).toMatchObject({ code: 0 });
  });

  it('knows files of policies by what is in them, and takes several for one set', async () => {
    const one = write(join(base, 'one.yaml'), 'service: web\nhops: two\n---\nservice: api\nhops: two');
    const two = write(join(base, 'two.yaml'), 'retries: 1\nservices: [web]');
    const wrong = write(join(base, 'wrong.yaml'), 'services: [web]\nhops: two');
    expect(await run('validate', one, two)).toMatchObject({ code: 0, out: `${one}: valid\n${two}: valid\n` });
    expect(await run('validate', one, wrong)).toMatchObject({
      code: 3,
      out: `${wrong}:2:1: hops: found hops of web, which ${one}:2 has already, expected each section of a service once\n`,
    });
    expect(await run('validate', directory, config)).toMatchObject({
      code: 0,
      out: `${config}: valid\n${directory}: valid\n`,
    });
    // `balance` is a section of the configuration as well.
    expect(await run('validate', write(join(base, 'c.yaml'), 'balance: {attempts: 2}'))).toMatchObject({
      code: 0,
    });
  });
});

describe('without a daemon', () => {
  it('diff compares with the directory of the configuration', async () => {
    write(join(directory, 'web.yaml'), 'service: web\ntimeouts: {request: 1s}');
    write(join(directory, 'api.yaml'), 'service: api\nhops: two');
    const file = write(join(base, 'web.yaml'), '# slower\nservice: web\ntimeouts: {request: 1m}\nretries: 1');
    const { code, out } = await run('diff', file);
    expect(code).toBe(0);
    expect(out.split('\n')).toEqual([
      `compared with ${directory}`,
      '',
      `web: retries added  (${file}:4)`,
      expect.stringMatching(/^ {4}\+ retries: \{"attempts":1,.*"backoff":\{"base":"25ms","max":"250ms"\}/),
      '',
      `web: timeouts changed  (${directory}/web.yaml:2 → ${file}:3)`,
      '      request: "1s" → "1m"',
      '',
    ]);
    const other = join(base, 'other.d');
    mkdirSync(other);
    write(join(other, 'web.yaml'), 'service: web\ntimeouts: {request: 1s}');
    expect(JSON.parse((await run('diff', other, '-o', 'json')).out)).toEqual({
      against: directory,
      changes: [{ service: 'api', section: 'hops', kind: 'removed', values: [{ path: '', before: 'two' }] }],
    });
    expect((await run('diff', directory)).out).toBe(`no difference to ${directory}\n`);
  });

  it('diff refuses what is wrong, and tells what there is nothing to compare with', async () => {
    const file = write(join(base, 'bad.yaml'), 'service: web\nhops: one');
    expect(await run('diff', file)).toMatchObject({
      code: 3,
      err: expect.stringContaining(`${file}:2:7: hops:`),
    });
    expect(await run('diff', join(base, 'none.yaml'))).toMatchObject({
      ...{ code: 5, err: `mesh-node: there is no file or directory ${base}/none.yaml\n` },
    });
    expect(await run('diff')).toMatchObject({ code: 4, err: expect.stringContaining('it is not running') });
    expect(await run('policies')).toMatchObject({ code: 4 });
  });
});

describe('with a daemon', () => {
  let server: AdminServer;
  beforeEach(async () => {
    server = await serveAdmin(adminSocket(base), new FakeBackend());
  });
  afterEach(() => server.close());

  it('diff compares with what it goes by', async () => {
    write(
      join(directory, 'a.yaml'),
      "service: '*'\nhops: three\n---\nservice: orders\ntimeouts: {request: 5s}",
    );
    expect((await run('diff')).out).toBe(
      [
        'compared with the running agent, version 3',
        '',
        `* (services without the section): hops changed  (/etc/mesh-node/policies.d/a.yaml:2 → ${directory}/a.yaml:2)`,
        '      hops: "two" → "three"',
        '',
      ].join('\n'),
    );
  });

  it('policies shows what holds, with its origin', async () => {
    expect((await run('policies')).out).toBe(`version 3
refused: /etc/mesh-node/policies.d/b.yaml:1:1: x: found a key that is not known, expected one of service

*
  # /etc/mesh-node/policies.d/a.yaml:2
  hops: two

orders
  # /etc/mesh-node/policies.d/a.yaml:5
  timeouts:
    request: 5s
`);
    expect((await run('policies', 'orders')).out).toBe(
      '# /etc/mesh-node/policies.d/a.yaml:5\ntimeouts:\n  request: 5s\n# /etc/mesh-node/policies.d/a.yaml:2\nhops: two\n',
    );
    expect(JSON.parse((await run('policies', 'constructor', '-o', 'json')).out)).toMatchObject({
      policy: { hops: 'two' },
    });
    expect(JSON.parse((await run('policies', '-o', 'json')).out)).toMatchObject({
      version: 3,
      source: 'directory',
    });
  });
});
