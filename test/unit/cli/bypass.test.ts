import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { adminSocket } from '../../../src/admin/api.ts';
import { type AdminServer, serveAdmin } from '../../../src/admin/server.ts';
import { runCli } from '../../../src/cli/program.ts';
import { FakeBackend } from '../../integration/admin/fake-backend.ts';

let directory: string;
let config: string;
let file: string;
let backend: FakeBackend;
let server: AdminServer | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mncli-bypass-'));
  config = join(directory, 'mesh-node.yaml');
  file = join(directory, 'etc/disabled');
  writeFileSync(config, `daemon: {runtimeDirectory: ${directory}}\ncapture: {disabledFile: ${file}}\n`);
  backend = new FakeBackend();
});
afterEach(async () => {
  await server?.close();
  server = undefined;
  rmSync(directory, { recursive: true });
});

async function run(...argv: string[]) {
  let out = '';
  let err = '';
  const code = await runCli(['bypass', ...argv, '--config', config], '1.2.3', {
    env: {},
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

/** A daemon that follows the file, as late as after so many questions. */
async function daemon(questions = 0): Promise<void> {
  const rules = backend.rules.bind(backend);
  let asked = 0;
  backend.rules = () => {
    if (++asked > questions) backend.suspensions = existsSync(file) ? ['disabled'] : [];
    return rules();
  };
  server = await serveAdmin(adminSocket(directory), backend);
}

describe('with a daemon', () => {
  it('on: makes the file and its directory, and waits until the daemon says so', async () => {
    await daemon(3);
    const { code, out } = await run('on');
    expect(code).toBe(0);
    expect(out).toMatch(/^bypass +on: .*disabled, since 20/m);
    expect(out).toMatch(/^ +goes direct +.*disabled is there \(mesh-node bypass off\)$/m);
    expect(out).toMatch(/^refused +3 addresses of strict services$/m);
    expect(readFileSync(file, 'utf8')).toMatch(/^mesh-node bypass on, 20/);
    expect(backend.asked.length).toBeGreaterThan(3);
  });

  it('on twice: what somebody wrote into the file stays', async () => {
    await daemon();
    await run('on');
    writeFileSync(file, 'ticket 4711\n');
    expect((await run('on')).code).toBe(0);
    expect(readFileSync(file, 'utf8')).toMatch(/^ticket 4711\nmesh-node bypass on/);
  });

  it('off: removes it, and waits until the daemon intercepts again', async () => {
    await daemon();
    await run('on');
    const { code, out } = await run('off', '-o', 'json');
    expect(code).toBe(0);
    expect(JSON.parse(out)).toEqual({
      ...{ bypass: 'off', file, daemon: 'running' },
      ...{ interception: 'applied', suspensions: [], strictAddresses: 3 },
    });
    expect(existsSync(file)).toBe(false);
    expect((await run('off')).code).toBe(0);
  });

  it('off, while something else keeps it away: says what', async () => {
    await daemon(1000);
    backend.suspensions = ['overload'];
    const { code, out } = await run('off');
    expect(code).toBe(0);
    expect(out).toMatch(/goes direct +the agent measured that it does harm/);
  });

  it('status changes nothing', async () => {
    await daemon();
    const before = JSON.parse((await run('status', '-o', 'json')).out);
    expect(before).toMatchObject({ bypass: 'off', interception: 'applied' });
    expect(existsSync(file)).toBe(false);
  });

  it('a configuration that cannot be used keeps nobody in', async () => {
    writeFileSync(config, 'capture: {mod: x}\n');
    const { code, err, out } = await run('status');
    expect(err).toContain('capture.mod');
    expect(err).toContain('going by the defaults');
    expect(out).toMatch(/^bypass +/m);
    expect(code).toBe(0);
  });
});

describe('without a daemon', () => {
  it('off removes the file, status says what holds', async () => {
    writeFileSync(
      config,
      `daemon: {runtimeDirectory: ${directory}}\ncapture: {disabledFile: ${directory}/d}\n`,
    );
    writeFileSync(join(directory, 'd'), '');
    expect((await run('status')).out).toMatch(/^daemon +not running\nnew connections +go direct; strict/m);
    expect(JSON.parse((await run('off', '-o', 'json')).out)).toEqual({
      ...{ bypass: 'off', file: `${directory}/d`, daemon: 'not running' },
    });
    expect(existsSync(join(directory, 'd'))).toBe(false);
  });

  it('what cannot be written is said', async () => {
    writeFileSync(join(directory, 'etc'), 'in the way');
    const { code, err } = await run('on');
    expect(code).toBe(5);
    expect(err).toContain(`${file} could not be changed`);
  });
});
