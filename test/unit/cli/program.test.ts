import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { adminSocket } from '../../../src/admin/api.ts';
import { type AdminServer, serveAdmin } from '../../../src/admin/server.ts';
import { runCli } from '../../../src/cli/program.ts';
import { MeshError } from '../../../src/model/errors.ts';
import { FakeBackend } from '../../integration/admin/fake-backend.ts';

const directory = mkdtempSync(join(tmpdir(), 'mncli-cli-'));
afterAll(() => rmSync(directory, { recursive: true }));

const config = join(directory, 'mesh-node.yaml');
const allowList = join(directory, 'allow-list');
writeFileSync(
  config,
  [
    `daemon: {runtimeDirectory: ${directory}, stateDirectory: ${directory}/state, user: root}`,
    `capture: {allowList: ${allowList}, mode: all}`,
    `identity: {authority: ${directory}/n/ca.crt, certificate: ${directory}/n/node.crt, key: ${directory}/n/node.key}`,
    'node: {name: web1}',
    'tunnel: {listen: 127.0.0.1, port: 25008}',
    'telemetry: {metricsListen: "127.0.0.1:25090"}',
  ].join('\n'),
);
afterEach(() => rmSync(allowList, { force: true }));

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function run(...argv: string[]): Promise<Outcome> {
  let out = '';
  let err = '';
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

describe('the command line', () => {
  it.each([
    [['--version'], 0, '1.2.3'],
    [['--help'], 0, 'Exit codes:'],
    [['status', '--help'], 0, 'Examples:'],
    [['run', '--help'], 0, 'SIGHUP reloads'],
    [[], 2, 'Usage:'],
    [['statu'], 2, 'Did you mean status?'],
    [['status', 'x'], 2, 'Allowed choices are agent, services'],
    [['status', '-o', 'yaml'], 2, 'Expected table or json'],
    [['check', '-o', 'long'], 2, 'Expected table, json or short'],
    [['validate', 'a', 'b'], 2, 'a and b: one configuration file at a time'],
    [['rules', 'print', '--uid', 'x'], 2, '--uid x: expected a number'],
    [['ca', 'issue', 'n'], 2, 'of no use'],
    [['ca', 'init', '--days', '0'], 2, 'expected a number of days'],
    [['status', '--config', '/nowhere.yaml'], 3, '/nowhere.yaml: found no such file'],
    [['status', '--set', 'capture.mod=all'], 3, 'did you mean capture.mode?'],
    [['run', '--set', 'capture.mode=x'], 3, '--set capture.mode=x'],
    [['status'], 4, 'it is not running'],
    [['reload'], 4, 'systemctl status mesh-node'],
    [['drain'], 4, 'does not answer'],
  ])('%j ends with %d and says %j', async (argv, code, text) => {
    const outcome = await run(...argv);
    expect(`${outcome.out}${outcome.err}`).toContain(text);
    expect(outcome.code).toBe(code);
    expect(outcome.err).not.toContain('    at ');
  });
});

describe('validate', () => {
  it('says yes', async () => {
    expect(await run('validate')).toEqual({ code: 0, out: `${config}: valid\n`, err: '' });
  });

  it('lists every mistake of a file', async () => {
    const file = join(directory, 'wrong.yaml');
    writeFileSync(file, 'captur: 1\ntunnel: {port: x}\n');
    const { code, out, err } = await run('validate', file);
    expect(code).toBe(3);
    expect(out.split('\n').slice(0, 2)).toEqual([
      expect.stringContaining(`${file}:1:1: captur:`),
      expect.stringContaining(`${file}:2:16: tunnel.port:`),
    ]);
    expect(err).toBe('mesh-node: 2 problems\n');
    const json = JSON.parse((await run('validate', file, '-o', 'json')).out) as {
      problems: { path: string }[];
    };
    expect(json.problems.map(({ path }) => path)).toEqual(['captur', 'tunnel.port']);
  });

  it('looks at the allow-list, too', async () => {
    writeFileSync(allowList, '10.0.0.0/8\nwhat is this\n');
    const { code, out } = await run('validate');
    expect(out).toContain(`${allowList}:2:1: found "what is this"`);
    expect(code).toBe(3);
  });
});

describe('rules', () => {
  it('print needs no daemon, and shows what the restore programs get', async () => {
    writeFileSync(allowList, '10.9.0.0/16\n');
    const { code, out } = await run('rules', 'print', '--uid', '990');
    expect(code).toBe(0);
    expect(out).toMatch(/^iptables-restore --noflush <<'END'\n\*[a-z]+\n/m);
    expect(out).toContain('\n*nat\n');
    expect(out).toContain('--uid-owner 990');
    expect(out).toContain('-d 10.9.0.0/16');
    const json = JSON.parse((await run('rules', 'print', '--uid', '990', '-o', 'json')).out) as {
      family: string;
    }[];
    expect(json.map(({ family }) => family)).toEqual(['ipv4', 'ipv6']);
    expect((await run('rules', 'print', '--set', 'capture.ipv6=off')).out).not.toContain('ip6tables');
    // What strict services need stands in every mode.
    expect((await run('rules', 'print', '--set', 'capture.mode=off')).out).not.toContain('REDIRECT');
  });

  it('refuses an allow-list with a mistake', async () => {
    writeFileSync(allowList, '?\n');
    expect(await run('rules', 'print')).toMatchObject({ code: 3, out: '' });
  });
});

describe('ca and check', () => {
  it('make certificates that check finds right', async () => {
    const ca = join(directory, 'ca');
    expect(await run('ca', 'init', '-d', ca)).toMatchObject({ code: 0, err: '' });
    expect(await run('ca', 'init', '-d', ca)).toMatchObject({ code: 3 });
    const issued = await run(
      'ca',
      'issue',
      'web1',
      '-d',
      ca,
      '--call-as',
      'a,b',
      '--host',
      '*',
      '-o',
      'json',
    );
    expect(JSON.parse(issued.out)).toMatchObject({
      node: 'web1',
      callAs: ['a', 'b'],
      host: ['*'],
      relay: false,
    });
    expect(readFileSync(join(directory, 'n/node.crt'), 'utf8')).toContain('BEGIN CERTIFICATE');
    const { out } = await run('check', '--pre', '-o', 'json');
    const { checks } = JSON.parse(out) as { checks: { name: string; state: string; detail: string }[] };
    const found = new Map(checks.map((check) => [check.name, check]));
    expect(found.get('configuration')?.state).toBe('ok');
    expect(found.get('user')?.detail).toBe('root has uid 0');
    expect(found.get('certificates')).toMatchObject({
      state: 'ok',
      detail: expect.stringMatching(/^certificate of web1, ends in \d+d\d+h$/),
    });
    expect(found.get('tunnel-port')?.detail).toBe('127.0.0.1 port 25008 is free');
    expect(found.has('daemon')).toBe(false);
  });

  it('check tells what is wrong, with a hint, and fails', async () => {
    const { code, out, err } = await run(
      'check',
      '--set',
      'node.name=other',
      '--set',
      'daemon.user=nobody-here',
    );
    expect(code).toBe(1);
    expect(out).toMatch(/✗ user +daemon\.user: no user nobody-here/);
    expect(out).toContain('→ useradd --system');
    expect(out).toMatch(/✗ certificates/);
    expect(out).toMatch(/✗ daemon +the daemon does not answer/);
    expect(err).toMatch(/^mesh-node: \d of \d+ checks failed\n$/);
    const short = await run('check', '-o', 'short');
    expect(short.out.split('\n').every((line) => line === '' || /^[a-z-]+: /.test(line))).toBe(true);
    const wrong = await run('check', '--set', 'capture.mode=x', '-o', 'json');
    expect(wrong.code).toBe(1);
    expect(JSON.parse(wrong.out)).toMatchObject({
      ok: false,
      checks: [{ name: 'configuration', state: 'fail' }],
    });
  });
});

describe('with a daemon', () => {
  let backend: FakeBackend;
  let server: AdminServer;
  beforeEach(async () => {
    backend = new FakeBackend();
    server = await serveAdmin(adminSocket(directory), backend);
  });
  afterEach(() => server.close());

  it('status shows the agent, and fails while it is not ready', async () => {
    const { code, out } = await run('status');
    expect(code).toBe(1);
    expect(out).toMatch(/node +web1 \(zone dc1, node\)/);
    expect(out).toMatch(/blocked by +catalogue: no registry has answered/);
    expect(out).toMatch(/running +1m5s, pid 42/);
    expect(out).toMatch(/policies +version 3: 1 services, for 1m\d+s/);
    expect(out).toMatch(/refused +\/etc\/mesh-node\/policies.d\/b.yaml:1:1: x: found a key/);
    expect(out).toMatch(/worker-0 +43 +serving +7 +3 +0/);
    backend.isReady = true;
    expect((await run('status')).code).toBe(0);
    expect(JSON.parse((await run('status', '-o', 'json')).out)).toMatchObject({ version: '1.2.3' });
  });

  it.each([
    ['services', /orders +tcp +permissive +1 +0 +240.1.2.3 +-\n… and 4 more/],
    ['connections', /worker-0-1 +outbound +5s +10\.0\.0\.9:40000 .* tunnel +1\.5 KiB +0 B/],
    ['tunnels', /web2 +10\.0\.0\.2:15008 +worker-0 +dialled +open +3 +0\.25ms +7s/],
    ['registries', /file:\/x +synced +1s +1 +1 +-/],
    ['rules', /allow-list problem +\/etc\/mesh-node\/allow-list:3:1/],
    ['rules', /left out for now +user:ghost: no such user\nunits not running +backup\.service\n/],
    ['rules', /share +10 % of new connections\nonly users +shop\n/],
  ])('status %s', async (what, text) => {
    const { code, out } = await run('status', what);
    expect(out).toMatch(text);
    expect(code).toBe(0);
    expect(() => JSON.parse(out) as unknown).toThrow();
    expect(JSON.parse((await run('status', what, '-o', 'json')).out)).toBeTypeOf('object');
  });

  it('observe shows who calls whom, and proposes an allow-list', async () => {
    const { code, out } = await run('observe', '--limit', '1');
    expect(code).toBe(0);
    expect(out).toMatch(/^observing: 12 connections seen since the start\n3 connections were not seen/);
    expect(out).toMatch(/^unit:shop\.service +orders +- +9 +1m\d*s? ago +1s ago +service\n… and 1 more/m);
    expect(JSON.parse((await run('observe', '-o', 'json')).out)).toMatchObject({ total: 2, lost: 3 });
    expect((await run('observe', '--propose')).out).toBe('# 3 connections: user:root (3)\n10.0.0.5:5432\n');
    expect(backend.asked).toEqual(['observe', 1, 'observe', 100, 'proposal']);
  });

  it('why tells the story of one that is over, and which ended badly', async () => {
    const { code, out } = await run('why', '7-1.2');
    expect(code).toBe(0);
    expect(out).toContain('asked for    GET orders/x');
    expect(out).toContain('by route     canary');
    expect(out).toContain('tried        one (tunnel): refused, connect: ECONNREFUSED');
    expect(out).toContain('went to      two in dc1 (tunnel)');
    expect(out).toContain('ended        timeout: no answer in time (no answer within 1 s)');
    expect((await run('why', '7-1')).out).toContain('was going to 192.0.2.1:443 (outbound)');
    expect((await run('why')).out).toMatch(/7-1\.2 +unit:shop\.service +orders +two +tunnel +504 +timeout/);
    expect(JSON.parse((await run('why', '--all', '-o', 'json')).out)).toMatchObject({ ended: [{}, {}] });
    expect(await run('why', '9-9')).toMatchObject({
      code: 1,
      err: expect.stringContaining('nobody remembers'),
    });
  });

  it('explain shows each decision and who may be picked', async () => {
    const { code, out } = await run(
      ...['explain', 'http://shop/x', '-H', 'x-user: eve', '-H', 'a: b', '--from', 'shop', '-X', 'POST'],
    );
    expect(code).toBe(0);
    expect(out).toMatch(/^route +by route canary\n +canary: matches\n/);
    expect(out).toMatch(/\* +one +dc1 +100 +tunnel +b +3 +1\.3ms +in this zone/);
    expect(out).toContain('so it goes to one of the instances');
    expect(backend.asked).toEqual([
      { to: 'http://shop/x', from: 'shop', method: 'POST', headers: 'x-user: eve\na: b' },
    ]);
    expect(await run('explain', 'nowhere')).toMatchObject({
      code: 1,
      err: 'mesh-node: nowhere would be refused\n',
    });
  });

  it('events shows what happened', async () => {
    const { code, out } = await run('events');
    expect(code).toBe(0);
    expect(out).toMatch(
      /1970-01-01T00:00:00\.000Z +worker-0 +circuit-breaker +orders +requests: closed → open/,
    );
    expect(JSON.parse((await run('events', '-o', 'json')).out)).toMatchObject({ events: [{}, {}] });
  });

  it('authz check asks who may call whom, and tells by its exit code', async () => {
    const options = ['--method', 'PUT', '--path', '/x?y', '--port', '80', '--node', 'web2', '--as', 'shop'];
    const denied = await run('authz', 'check', 'unit:front', 'orders', ...options);
    expect(denied.code).toBe(1);
    expect(denied.out).toBe(
      'denied: no-front says so\nwritten in /etc/mesh-node/policies.d/orders.yaml:3\nnote: permissive\n',
    );
    expect(backend.asked).toEqual([
      {
        ...{ caller: 'unit:front', service: 'orders', method: 'PUT', path: '/x?y' },
        ...{ port: 80, node: 'web2', as: 'shop' },
      },
    ]);
    const shadow = await run('authz', 'check', 'unit:front', 'orders', '--method', 'GET', '-o', 'json');
    expect([shadow.code, JSON.parse(shadow.out)]).toEqual([0, expect.objectContaining({ rule: 'no-front' })]);
    expect(await run('authz', 'check', 'user:alice', 'orders')).toMatchObject({ code: 0 });
    expect(await run('authz', 'check', 'unit:front', 'orders')).toMatchObject({ code: 2 });
    expect(await run('authz', 'check', 'unit:front', 'orders', '--port', 'x')).toMatchObject({ code: 2 });
  });

  it('resolve asks for a name or an address', async () => {
    const { code, out } = await run('resolve', 'orders');
    expect(code).toBe(0);
    expect(out).toContain('service: any instance of orders');
    expect(out).toMatch(/orders +10\.0\.0\.1:80 +10\.0\.0\.1:80 +web1 +dc1 +100 +in use/);
    await run('resolve', '[FD00::1]:80');
    expect(backend.asked).toEqual([{ name: 'orders' }, { address: '[fd00::1]:80' }]);
    expect(await run('resolve', 'nobody')).toMatchObject({
      code: 1,
      err: 'mesh-node: nobody knows nobody\n',
    });
  });

  it('reload and drain tell what became of them', async () => {
    expect((await run('reload')).out).toBe('reloaded, changed: telemetry\nafter a restart: daemon\n');
    expect((await run('drain', 'orders')).out).toBe('draining orders; connections that go on for now: 3\n');
    backend.failure = new MeshError('configuration', 'operator', 'x.yaml:1:1: wrong');
    expect(await run('reload')).toMatchObject({ code: 3, err: 'mesh-node: x.yaml:1:1: wrong\n' });
  });

  it('leaves nothing behind', async () => {
    await server.close();
    expect(existsSync(adminSocket(directory))).toBe(false);
  });
});
