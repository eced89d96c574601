import { chmod, chown, copyFile, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { issueNode, writeNodeBundle } from '../../src/identity/authority.ts';
import { Authority, MeshHost, Program } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { type Host, Topology } from '../support/topology.ts';
import { Held, trafficServer } from '../support/traffic.ts';

/*
 * `a` runs mesh-node and is broken in one way after the other; `b` is the resolver of the network and serves. What
 * `mesh-node check` says is compared whole: the check that ought to fail does, and no other.
 */

const PORT = 7000;
const STRICT = 7001;
/** Soon over: less than a third of its life is left, the time before it for clocks that are slow included. */
const SHORT_LIFE_DAYS = 1 / 24 / 60;

interface Found {
  readonly name: string;
  readonly state: 'ok' | 'warn' | 'fail' | 'skip';
  readonly detail: string;
  readonly hint?: string;
}

let topology: Topology;
let authority: Authority;
let a: Host;
let b: Host;
let mesh: MeshHost;
/** What stands in `broken` is undone after each test, in reverse order. */
let undo: (() => Promise<unknown>)[] = [];

async function etc(host: Host, name: string, text: string): Promise<void> {
  const file = join(host.directory, name);
  await writeFile(file, text, { mode: 0o644 });
  host.useFile(`/etc/${name}`, file);
}

beforeAll(async () => {
  topology = await Topology.create('mnck', {
    networks: { lan: { ipv4: '10.94.1', ipv6: 'fd94:1', router: true } },
    hosts: { a: { lan: 1 }, b: { lan: 2 } },
  });
  a = topology.host('a');
  b = topology.host('b');
  await etc(a, 'resolv.conf', `nameserver ${b.ipv4}\noptions timeout:1 attempts:1\n`);
  await etc(a, 'nsswitch.conf', 'hosts: files dns\npasswd: files\ngroup: files\n');
  await etc(a, 'hosts', '127.0.0.1 localhost\n::1 localhost\n');
  const dnsmasq = b.spawn('dnsmasq', [
    ...['dnsmasq', '--keep-in-foreground', '--no-hosts', '--no-resolv', '--user=root', '--bind-interfaces'],
    ...['--pid-file', `--listen-address=${b.ipv4}`],
  ]);
  await waitFor('the resolver listens', async () => (await b.must(['ss', '-Hlnu', 'sport = :53'])) !== '', {
    alive: dnsmasq,
  });
  for (const port of [PORT, STRICT]) await trafficServer(b, port);
  const program = await Program.prepare(topology);
  authority = await Authority.create(join(topology.directory, 'ca'));
  mesh = await MeshHost.prepare(a, program, authority, {
    zone: 'dc1',
    grants: { callAs: ['shop'] },
    catalogue: {
      services: [
        { name: 'orders', protocol: 'tcp', instances: [{ address: `${b.ipv4}:${PORT}` }] },
        { name: 'vault', protocol: 'tcp', mode: 'strict', instances: [{ address: `${b.ipv4}:${STRICT}` }] },
      ],
    },
    config: {
      capture: { reassertInterval: '1h', deadAfter: '60s', disabledFile: join(a.directory, 'disabled') },
      daemon: { workers: 1, hangTimeout: '60s', suspendTimeout: '60s' },
    },
  });
});
afterEach(async () => {
  for (const step of undo.reverse()) await step();
  undo = [];
});
afterAll(() => topology.stop());

async function check(...args: readonly string[]): Promise<ReadonlyMap<string, Found>> {
  const { stdout, stderr, code } = await mesh.cli(['check', '-o', 'json', ...args]);
  if (!stdout.startsWith('{')) throw new Error(`no result: ${stderr}`);
  const { ok, checks } = JSON.parse(stdout) as { readonly ok: boolean; readonly checks: readonly Found[] };
  expect(ok).toBe(checks.every(({ state }) => state !== 'fail'));
  expect(code).toBe(ok ? 0 : 1);
  for (const { state, hint } of checks) {
    if (state === 'fail' || state === 'warn') expect(hint).toBeTruthy();
  }
  return new Map(checks.map((one) => [one.name, one]));
}

/** Names of the checks in a state. What the machine itself lacks in the way of time servers is not of interest here. */
function those(found: ReadonlyMap<string, Found>, state: Found['state']): string[] {
  return [...found.values()]
    .filter((one) => one.state === state && one.name !== 'clock')
    .map(({ name }) => name);
}

/** Breaks something until the end of the test. */
async function broken(how: readonly string[], mended: readonly string[]): Promise<void> {
  await a.must(how);
  undo.push(() => a.must(mended));
}

const hidden = (path: string): readonly string[] => [
  ...['unshare', '--mount', 'sh', '-c', `mount --bind ${path} /etc/nsswitch.conf && exec "$@"`, 'sh'],
];

describe('before the daemon runs', () => {
  test('a key that the daemon cannot read', async () => {
    const key = join(mesh.directory, 'identity/node.key');
    await chown(key, 0, 0);
    undo.push(() => chown(key, mesh.user.uid, mesh.user.gid));
    const found = await check('--pre');
    expect(those(found, 'fail')).toEqual(['files']);
    expect(found.get('files')?.hint).toBe(`chown mesh-node ${key}`);
  });

  test('all is well, and redirection works in a network namespace of its own', async () => {
    const before = await a.must([
      'sh',
      '-c',
      'iptables-save; ip6tables-save; ipset list -n; ip route; ip rule',
    ]);
    const found = await check('--pre', '--self-test');
    expect([those(found, 'fail'), those(found, 'warn')]).toEqual([[], []]);
    expect(found.get('self-test')?.detail).toContain('redirected on ipv4 and ipv6');
    expect(found.get('extensions')?.detail).toMatch(/REDIRECT .*NFLOG work for ipv4 and ipv6/);
    expect(found.has('daemon')).toBe(false);
    const after = await a.must([
      'sh',
      '-c',
      'iptables-save; ip6tables-save; ipset list -n; ip route; ip rule',
    ]);
    expect(after.replace(/^#.*$/gm, ''), 'nothing was changed').toBe(before.replace(/^#.*$/gm, ''));
  });

  test('a port that is taken, a range that is used, a file that others may write, rules in both backends', async () => {
    const allowList = join(mesh.directory, 'allow-list');
    const taken = a.spawn('squatter', ['nc', '-lk', '127.0.0.1', '15001'], {
      user: { uid: 65_534, gid: 65_534 },
    });
    undo.push(() => taken.stop());
    await a.listening(15_001, taken);
    await broken(
      ['ip', 'address', 'add', '240.7.0.1/16', 'dev', 'eth0'],
      ['ip', 'address', 'del', '240.7.0.1/16', 'dev', 'eth0'],
    );
    await chmod(allowList, 0o666);
    undo.push(() => chmod(allowList, 0o644));
    await broken(['iptables-legacy', '-A', 'INPUT', '-p', 'udp', '-j', 'ACCEPT'], ['iptables-legacy', '-F']);
    const found = await check('--pre');
    expect(those(found, 'fail').toSorted()).toEqual(['capture-port', 'files', 'virtual-addresses']);
    expect(found.get('capture-port')?.hint).toContain('ss -ltnp');
    expect(found.get('virtual-addresses')?.detail).toMatch(/240\.0\.0\.0\/4 is used by others: .* eth0/);
    expect(found.get('files')).toMatchObject({ hint: `chmod 644 ${allowList}` });
    expect(those(found, 'warn')).toEqual(['iptables']);
    expect(found.get('iptables')?.detail).toContain('1 rules stand in the legacy backend');
  });
});

describe('while the daemon runs', () => {
  beforeAll(async () => {
    await mesh.start();
    await waitFor('all rules stand', async () => those(await check(), 'fail').length === 0, {
      timeoutMs: 30_000,
    });
  });
  afterAll(() => mesh.stop());

  test('all is well, and connections reach a worker on both families', async () => {
    const found = await check('--self-test');
    expect([those(found, 'fail'), those(found, 'warn')]).toEqual([[], []]);
    expect(found.get('self-test')?.detail).toContain('answered by a worker: ipv4 and ipv6');
    expect(found.get('services')?.detail).toBe('strict: vault; permissive: orders');
    expect(found.get('names')?.detail).toMatch(/^orders\.mesh is 2/);
    expect(found.get('capture-port')?.detail).toContain('in use while the daemon runs');
    const lines = await mesh.accessLog();
    expect(lines, 'it is nobody’s connection').toEqual([]);
  });

  test('a rule of another tool before ours', async () => {
    const rule = ['OUTPUT', '-p', 'tcp', '-j', 'ACCEPT'];
    await broken(['iptables', '-t', 'nat', '-I', ...rule], ['iptables', '-t', 'nat', '-D', ...rule]);
    const found = await check('--self-test');
    expect(those(found, 'fail').toSorted()).toEqual(['other-rules', 'rules', 'self-test']);
    expect(found.get('other-rules')?.detail).toContain('"-p tcp -j ACCEPT" stands before ours');
    expect(found.get('self-test')?.detail).toMatch(/^ipv4: /);
  });

  test('a rule of another tool that accepts what strict services refuse', async () => {
    // What comes last stands first: of these only the first opens something.
    for (const rule of [
      '-j ACCEPT',
      '-m conntrack --ctstate ESTABLISHED -j ACCEPT',
      '-s 2001:db8::1 -j DROP',
      '-i lo -j ACCEPT',
    ]) {
      const words = ['INPUT', '-p', 'tcp', ...rule.split(' ')];
      await broken(['ip6tables', '-I', ...words], ['ip6tables', '-D', ...words]);
    }
    const found = await check();
    expect(found.get('other-rules')).toMatchObject({
      state: 'warn',
      detail: expect.stringContaining('ipv6 filter INPUT: "-p tcp -j ACCEPT" stands before ours'),
    });
    expect(those(found, 'fail')).toEqual(['rules']);
  });

  test('rules of one family flushed', async () => {
    const saved = await a.must(['ip6tables-save', '-t', 'nat']);
    await a.must(['ip6tables', '-t', 'nat', '-F', 'MESH_OUT']);
    undo.push(() => a.must(['ip6tables-restore'], { input: saved }));
    const found = await check('--self-test');
    expect(those(found, 'fail').toSorted()).toEqual(['rules', 'self-test']);
    expect(found.get('self-test')?.detail).toMatch(/^ipv6: /);
    expect(found.get('rules')?.detail).toContain('MESH_OUT');
  });

  test('the route of virtual addresses deleted', async () => {
    const route = ['240.0.0.0/4', 'dev', 'lo', 'proto', '109'];
    await broken(['ip', 'route', 'del', ...route], ['ip', 'route', 'add', ...route]);
    const found = await check();
    expect(those(found, 'fail').toSorted()).toEqual(['rules', 'virtual-addresses']);
    expect(found.get('virtual-addresses')?.hint).toContain('ip -4 route add 240.0.0.0/4 dev lo');
  });

  test('a worker that hangs', async () => {
    const [worker] = await mesh.workers();
    process.kill(worker!, 'SIGSTOP');
    undo.push(async () => process.kill(worker!, 'SIGCONT'));
    const found = await check('--self-test');
    expect(those(found, 'fail'), 'it was the only one to answer for names, too').toEqual([
      'names',
      'self-test',
    ]);
    expect(found.get('self-test')?.detail).toContain('accepted and not answered');
  });

  test('a supervisor that hangs: the checks end all the same', async () => {
    process.kill(mesh.running.pid, 'SIGSTOP');
    undo.push(async () => process.kill(mesh.running.pid, 'SIGCONT'));
    const began = performance.now();
    const found = await check();
    expect(performance.now() - began).toBeLessThan(15_000);
    expect(those(found, 'fail')).toContain('daemon');
    expect(found.get('extensions')?.state).toBe('ok');
  });

  test('names that do not resolve, and a certificate near its end', async () => {
    const nsswitch = join(a.directory, 'files-only');
    await writeFile(nsswitch, 'hosts: files\npasswd: files\ngroup: files\n');
    const identity = join(mesh.directory, 'identity');
    const bundle = await issueNode(authority.directory, {
      ...{ node: 'a', callAs: ['shop'], host: [], relay: false },
      days: SHORT_LIFE_DAYS,
    });
    for (const name of ['node.crt', 'node.key', 'ca.crt']) {
      await copyFile(join(identity, name), join(a.directory, name));
      undo.push(() => copyFile(join(a.directory, name), join(identity, name)));
    }
    await writeNodeBundle(identity, bundle, { overwrite: true });
    for (const name of ['node.crt', 'node.key', 'ca.crt'])
      await chown(join(identity, name), mesh.user.uid, mesh.user.gid);
    const outcome = await a.exec([
      ...hidden(nsswitch),
      process.execPath,
      join(topology.directory, 'program/dist/main.js'),
      'check',
      '-o',
      'json',
      '--config',
      mesh.configFile,
    ]);
    const { checks } = JSON.parse(outcome.stdout) as { readonly checks: readonly Found[] };
    const found = new Map(checks.map((one) => [one.name, one]));
    expect(those(found, 'fail')).toEqual(['names']);
    expect(found.get('names')?.hint).toContain('Does /etc/nsswitch.conf say');
    expect(those(found, 'warn')).toEqual(['certificates']);
    expect(found.get('certificates')).toMatchObject({
      hint: expect.stringContaining('mesh-node ca issue a'),
    });
  });

  test('no way to the nameserver', async () => {
    const routes = ['default', 'via', '10.94.1.254'];
    await broken(['ip', 'route', 'del', ...routes], ['ip', 'route', 'add', ...routes]);
    const way = ['10.94.1.0/24', 'dev', 'eth0'];
    await broken(['ip', 'route', 'del', ...way], ['ip', 'route', 'add', ...way]);
    const found = await check();
    expect(those(found, 'fail')).toEqual(['names']);
    expect(found.get('names')?.hint).toContain('has no route to 10.94.1.2');
    expect(those(found, 'warn')).toEqual(['resolver']);
  });

  test('switched off by the operator', async () => {
    const file = join(a.directory, 'disabled');
    await writeFile(file, '');
    await waitFor('it is noticed', async () => (await mesh.status()).interception.suspensions.length > 0);
    const found = await check('--self-test');
    expect(those(found, 'fail')).toEqual(['self-test']);
    expect(those(found, 'warn')).toEqual(['interception']);
    expect(found.get('interception')?.detail).toContain('mesh-node bypass off');
    await rm(file);
    await waitFor('it is back', async () => (await mesh.status()).interception.suspensions.length === 0);
  });
});

test('what is left of an agent that was killed, with its hint; and nothing after that', async () => {
  await mesh.start();
  const held = await Held.open(a, b.ipv4, PORT);
  await mesh.signalAll('SIGKILL');
  await held.ended();
  const found = await check('--pre');
  expect(those(found, 'fail')).toEqual(['leftovers']);
  expect(found.get('leftovers')?.detail).toMatch(/chains .*MESH_.*sets .*MESH_.*routes .*240\.0\.0\.0\/4/);
  expect(found.get('leftovers')?.hint).toContain('mesh-node rules remove');
  await mesh.cli(['rules', 'remove']);
  expect((await check('--pre')).get('leftovers')?.state).toBe('ok');
  expect(await readFile(join(a.directory, 'hosts'), 'utf8')).not.toContain('mesh-node');
});
