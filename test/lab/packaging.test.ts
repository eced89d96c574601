import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { must, run } from '../support/process.ts';
import { REPOSITORY } from '../support/topology.ts';

const at = (path: string) => join(REPOSITORY, path);
const units = ['mesh-node.service', 'mesh-node-zone-agent.service'];
const allUnits = [...units, 'mesh-node-fallback.service'];

test('shellcheck has nothing to say', async () => {
  const names = (await readdir(at('scripts'), { withFileTypes: true })).filter((entry) => entry.isFile());
  const scripts = [
    ...names.map(({ name }) => `scripts/${name}`),
    'systemd/withdraw-rules',
    'systemd/unattended-rules',
    '.ci/run',
  ];
  expect(scripts.length).toBeGreaterThan(6);
  const outcome = await run(['shellcheck', '--external-sources', ...scripts], { cwd: REPOSITORY });
  expect(outcome.stdout + outcome.stderr).toBe('');
});

describe('units', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mnlab-units-'));
    for (const unit of allUnits) {
      // The programs are not installed here: what is verified is everything else.
      const text = await readFile(at(`systemd/${unit}`), 'utf8');
      await writeFile(
        join(directory, unit),
        text.replaceAll(/\/usr\/(?:bin\/mesh-node|lib\/mesh-node\/withdraw-rules)\b/g, '/bin/true'),
      );
    }
  });
  afterAll(() => rm(directory, { recursive: true }));

  test.each(allUnits)('systemd-analyze verify is silent about %s', async (unit) => {
    const outcome = await run(['systemd-analyze', 'verify', '--man=no', join(directory, unit)]);
    expect(outcome).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  test.each(units)('%s is hardened', async (unit) => {
    await must(['systemd-analyze', 'security', '--offline=true', '--threshold=22', join(directory, unit)]);
  });

  test('the two units differ in their command and in what they exclude, nothing else', async () => {
    const [node, zone] = await Promise.all(units.map((unit) => readFile(at(`systemd/${unit}`), 'utf8')));
    const common = (text: string) =>
      text
        .replace(/^# A zone-agent.*\n# .*\nConflicts=.*\nAfter=.*\n/m, '')
        .split('\n')
        .filter((line) => !/^(?:Description|ExecStart)=/.test(line));
    expect(zone).toContain('Conflicts=mesh-node.service\nAfter=mesh-node.service\n');
    expect(common(zone!)).toEqual(common(node!));
  });
});

describe('scripts/install --dry-run', () => {
  test('says what it would do and does nothing', async () => {
    const target = await mkdtemp(join(tmpdir(), 'mnlab-install-'));
    const outcome = await run(['scripts/install', '--dry-run', '--prefix', join(target, 'usr')], {
      cwd: REPOSITORY,
    });
    expect(outcome.code, outcome.stderr).toBe(0);
    expect(outcome.stdout).toContain(`+ write ${target}/usr/bin/mesh-node`);
    expect(outcome.stdout).toContain('npm ci');
    expect(await readdir(target)).toEqual([]);
    await rm(target, { recursive: true });
  });
});

describe('withdraw-rules', () => {
  const namespace = `mnlab-${process.pid}-rules`;
  const inside = (command: readonly string[], input?: string) =>
    must(
      ['nsenter', `--net=/run/netns/${namespace}`, '--', ...command],
      input === undefined ? {} : { input },
    );
  const script = at('systemd/withdraw-rules');
  const ours = `*nat
:MESH_KEEP - [0:0]
:MESH_OUT - [0:0]
:FOREIGN - [0:0]
-A OUTPUT -j MESH_OUT
-A OUTPUT -j FOREIGN
-A MESH_KEEP -m conntrack --ctstate NEW -j RETURN
-A MESH_OUT -p tcp -m tcp --syn -j REDIRECT --to-ports 15001
-A FOREIGN -m comment --comment "not ours -j MESH_OUT" -j RETURN
COMMIT
`;
  beforeAll(() => must(['ip', 'netns', 'add', namespace]));
  afterAll(() => must(['ip', 'netns', 'delete', namespace]));

  test.each(['nft', 'legacy'])('with iptables-%s', async (backend) => {
    for (const family of ['iptables', 'ip6tables'])
      await inside([`${family}-${backend}-restore`, '--noflush'], ours);
    await inside(['ipset', 'create', 'MESH_DST4', 'hash:ip,port']);
    await inside([script]);
    for (const family of ['iptables', 'ip6tables']) {
      const saved = await inside([`${family}-${backend}-save`, '-t', 'nat']);
      expect(saved).not.toContain('REDIRECT');
      expect(saved).toContain('-A MESH_KEEP -m conntrack --ctstate NEW -j RETURN');
      expect(saved).toContain('-A FOREIGN');
    }
    expect(await inside([script]), 'nothing is left to do').toBe('');
    await inside([script, '--remove']);
    for (const family of ['iptables', 'ip6tables']) {
      const saved = await inside([`${family}-${backend}-save`, '-t', 'nat']);
      expect(saved.replaceAll('not ours -j MESH_OUT', '')).not.toContain('MESH_');
      expect(saved).toContain('-A OUTPUT -j FOREIGN');
      await inside([`${family}-${backend}-restore`], '*nat\nCOMMIT\n');
    }
    expect(await inside(['ipset', 'list', '-n'])).toBe('');
  });
});
