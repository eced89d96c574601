import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '../../..');
const directory = mkdtempSync(join(tmpdir(), 'mncli-program-'));

function meshNode(...argv: string[]): { code: number | null; out: string; err: string } {
  const done = spawnSync(process.execPath, [join(directory, 'dist/main.js'), ...argv], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'] },
  });
  return { code: done.status, out: done.stdout, err: done.stderr };
}

beforeAll(() => {
  execFileSync(join(root, 'scripts/build'), { stdio: 'inherit' });
  cpSync(join(root, 'dist'), join(directory, 'dist'), { recursive: true });
  cpSync(join(root, 'package.json'), join(directory, 'package.json'));
  for (const name of ['withdraw-rules', 'unattended-rules', 'unattended-rules.awk'])
    cpSync(join(root, 'systemd', name), join(directory, name));
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'));
}, 120_000);
afterAll(() => rmSync(directory, { recursive: true }));

describe('the built program', () => {
  it('answers, and ends with the right code', () => {
    expect(meshNode('--version')).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
      err: '',
    });
    const file = join(directory, 'x.yaml');
    writeFileSync(file, 'tunnel: {port: no}\n');
    expect(meshNode('validate', file)).toMatchObject({
      code: 3,
      out: `${file}:1:16: tunnel.port: found text "no", expected integer 1–65535\n`,
    });
    expect(meshNode('status', '--set', `daemon.runtimeDirectory=${directory}`).code).toBe(4);
    expect(meshNode('run', '--config', file).code).toBe(3);
  });

  it('does not load the daemon for a small question', () => {
    const script = `
      import { register } from 'node:module';
      const hooks = 'export async function resolve(s, c, next) { const r = await next(s, c); process._rawDebug(r.url); return r; }';
      register('data:text/javascript,' + encodeURIComponent(hooks));
      process.argv = ['node', 'mesh-node', '--version'];
      await import(${JSON.stringify(join(directory, 'dist/main.js'))});`;
    const done = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    expect(done.stderr).toContain('/dist/chunks/');
    expect(done.stderr).not.toContain('/dist/chunks/supervisor-');
    expect(done.stderr).not.toContain('koffi');
  });

  it('prints the destinations of mode services as the registries tell them', () => {
    const catalogue = join(directory, 'catalogue');
    mkdirSync(catalogue);
    const text = 'services:\n  - name: orders\n    instances:\n      - address: 10.7.0.1:8080\n';
    writeFileSync(join(catalogue, 'orders.yaml'), text);
    const file = join(directory, 'services.yaml');
    const cache = `cache: {file: ${directory}/catalogue.cache}`;
    writeFileSync(file, `registries: [{type: file, directory: ${catalogue}}]\n${cache}\n`);
    const arguments_ = ['rules', 'print', '--uid', '990', '--config', file];
    const done = spawnSync(process.execPath, [join(directory, 'dist/main.js'), ...arguments_], {
      encoding: 'utf8',
    });
    expect(done).toMatchObject({ status: 0, stderr: '' });
    expect(done.stdout).toContain("ipset restore <<'END'\n");
    expect(done.stdout).toContain('10.7.0.1,tcp:8080');
  });

  it('puts rules into a namespace, verifies them and takes them out', () => {
    const file = join(directory, 'rules.yaml');
    writeFileSync(
      file,
      `capture: {mode: all, allowList: ${directory}/none}\ndaemon: {user: root, runtimeDirectory: ${directory}}\n`,
    );
    const main = join(directory, 'dist/main.js');
    const step = (command: string): string =>
      `node ${main} rules ${command} --config ${file} --uid 990; echo "→ $?"`;
    const script = [
      'ip link set lo up',
      step('apply'),
      step('verify'),
      'iptables -t nat -D OUTPUT 1',
      step('verify'),
      step('remove'),
      'iptables-save -t nat | grep -c MESH_',
    ].join('\n');
    const done = spawnSync('unshare', ['--net', 'sh', '-c', script], {
      encoding: 'utf8',
      env: { PATH: process.env['PATH'] },
    });
    const codes = done.stdout.split('\n').filter((line) => line.startsWith('→'));
    expect(codes, `${done.stdout}${done.stderr}`).toEqual(['→ 0', '→ 0', '→ 1', '→ 0']);
    expect(done.stdout).toContain('jump-missing');
    expect(done.stdout.trimEnd().split('\n').at(-1)).toBe('0');
  });
});
