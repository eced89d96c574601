import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ReadyAnswer, StatusAnswer } from '../../src/admin/api.ts';
import type { AccessLine } from '../support/mesh.ts';
import { must, waitFor } from '../support/process.ts';
import { nginx } from '../support/servers.ts';
import { at } from '../support/site.ts';
import { CLONE, SystemdHost } from '../support/systemd-host.ts';
import { REPOSITORY, Topology } from '../support/topology.ts';

/*
 * Two hosts with a real systemd, from `scripts/install` to `scripts/uninstall --purge`, with the commands that README.md
 * tells an operator to type. The tests are one story: each begins where the one before ended.
 */

const UNIT = 'mesh-node.service';
const UNITS = [UNIT, 'mesh-node-zone-agent.service', 'mesh-node-fallback.service'];
const PORT = 8080;
/** Rules for the time without the agent. */
const LEFT = '/var/lib/mesh-node/fallback/rules-ipv4';
const NET_ADMIN = 12n;
const NET_RAW = 13n;

let topology: Topology;
let a: SystemdHost;
let b: SystemdHost;
/** Files that were there before anything was installed. */
let before: string[];
let hosts: string;

beforeAll(async () => {
  topology = await Topology.create('mnsd', {
    networks: { lan: { ipv4: '10.83.1', ipv6: 'fd83:1', router: false } },
    hosts: { a: { lan: 1 }, b: { lan: 2 } },
  });
  [a, b] = await Promise.all([SystemdHost.boot(topology, 'a'), SystemdHost.boot(topology, 'b')]);
  await nginx(b.host, PORT, 'b');
});
afterAll(async () => {
  await Promise.all([a?.powerOff(), b?.powerOff()]);
  await topology.stop();
});

/** Everything that was written on a host, but not what any boot, download or change of a user writes. */
async function files(machine: SystemdHost): Promise<string[]> {
  const anyway =
    /^\/(?:var\/(?:log\/journal|lib\/systemd|tmp|cache)|root|etc\/(?:passwd|group|shadow|gshadow|subuid|subgid)-?$|etc\/\.pwd\.lock|etc\/hosts$)/;
  const found = await must(['find', machine.written, '-not', '-type', 'd', '-printf', '/%P\n']);
  return found
    .split('\n')
    .filter((file) => file !== '' && !anyway.test(file))
    .sort();
}

/** What of ours the kernel holds on a host. */
async function ours(machine: SystemdHost): Promise<string> {
  const held = await Promise.all(
    [
      ['iptables-save'],
      ['ip6tables-save'],
      ['ipset', 'list', '-n'],
      ['ip', 'rule'],
      ['ip', '-6', 'rule'],
    ].map((command) => machine.host.must(command)),
  );
  return held
    .join('')
    .split('\n')
    .filter((line) => /mesh/i.test(line))
    .join('\n');
}

/** Who the server on b saw: its own host, when the bytes came out of b's agent; or a. */
async function caller(family: 'ipv4' | 'ipv6' = 'ipv4'): Promise<'mesh' | 'direct'> {
  const ip = b.host.address(family);
  const answer = await a.must(['curl', '-gsS', '--max-time', '5', `http://${at(ip, PORT)}/`]);
  if (answer === `b ${ip}\n`) return 'mesh';
  expect(answer).toBe(`b ${a.host.address(family)}\n`);
  return 'direct';
}

async function lastAccess(machine: SystemdHost): Promise<AccessLine | undefined> {
  const lines = (await machine.journal(UNIT)).filter((line) => line.includes('"log":"access"'));
  return lines.length === 0 ? undefined : (JSON.parse(lines.at(-1)!) as AccessLine);
}

const supervisor = (machine: SystemdHost) => machine.show(UNIT, 'MainPID');

/** Process ids of the workers on a that serve. */
async function workers(): Promise<number[]> {
  const { workers: all } = (await a.api('/v1/status')) as StatusAnswer;
  return all.filter(({ state }) => state === 'serving').map(({ pid }) => pid);
}

/** Takes everything of ours out of the kernel, as a reboot does. */
async function removeOurs(machine: SystemdHost): Promise<void> {
  const env = {
    MESH_NODE_DAEMON_STATE_DIRECTORY: '/nowhere',
    WITHDRAW_HOSTS: '/nowhere',
  };
  await machine.host.must([join(REPOSITORY, 'systemd/withdraw-rules'), '--remove'], { env });
  expect(await ours(machine)).toBe('');
}

describe('scripts/install', () => {
  test('installs, and starts nothing', async () => {
    for (const machine of [a, b]) await machine.exec(['userdel', 'mesh-node']); // other tests may have made it here
    // Queries are taken on their way to a nameserver; whether it answers does not matter.
    await a.write('/etc/resolv.conf', `nameserver ${b.host.ipv4}\n`);
    before = await files(a);
    hosts = await a.must(['cat', '/etc/hosts']);
    const said = await a.online([`${CLONE}/scripts/install`]);
    expect(said).toContain('mesh-node is installed');
    expect(await a.show(UNIT, 'ActiveState')).toBe('inactive');
    expect(await ours(a)).toBe('');
    expect(await a.must(['mesh-node', '--version'])).toMatch(/^\d+\.\d+\.\d+\n$/);
    const wide = [
      'find',
      '/usr/lib/mesh-node',
      '/usr/bin/mesh-node',
      '/etc/mesh-node',
      '-perm',
      '/022',
      '-not',
      '-type',
      'l',
    ];
    expect(await a.must(wide), 'only root may change what root runs').toBe('');
  });

  test('a second time it keeps the configuration', async () => {
    await a.write('/etc/mesh-node/allow-list', '192.0.2.1\n');
    const said = await a.online([`${CLONE}/scripts/install`]);
    expect(said).toContain('kept: /etc/mesh-node/allow-list');
    expect(await a.must(['cat', '/etc/mesh-node/allow-list'])).toBe('192.0.2.1\n');
  });

  test('systemd has nothing to say about the units', async () => {
    const outcome = await a.exec(['systemd-analyze', 'verify', ...UNITS]);
    expect(outcome).toEqual({ code: 0, stdout: '', stderr: '' });
  });
});

const catalogue = () => `services:
  - name: orders
    instances:
      - { address: ${at(b.host.ipv4, PORT)}, node: host-b }
      - { address: '${at(b.host.ipv6, PORT)}', node: host-b }
nodes:
  - { name: host-a, zone: default, tunnel: ${at(a.host.ipv4, 15_008)} }
  - { name: host-b, zone: default, tunnel: ${at(b.host.ipv4, 15_008)} }
`;
const configuration = (more = '') => `node:
  name: host-a
  callAs: shop
daemon:
  drainTimeout: 5s
${more}`;

test('authority, certificates, catalogue: only the daemon may read its key', async () => {
  await b.must(['useradd', '--system', '--user-group', '--shell', '/usr/sbin/nologin', 'mesh-node']);
  const program = [
    '/usr/lib/mesh-node',
    '/usr/bin/mesh-node',
    `/usr/lib/systemd/system/${UNIT}`,
    '/etc/mesh-node',
  ];
  await a.copyTo(b, [...program, '/var/lib/mesh-node']);
  await a.must(['mesh-node', 'ca', 'init', '--directory', '/root/ca']);
  for (const [machine, name, grant] of [
    [a, 'host-a', ['--call-as', 'shop']],
    [b, 'host-b', ['--host', 'orders']],
  ] as const) {
    const to = `/root/${name}`;
    await a.must(['mesh-node', 'ca', 'issue', name, ...grant, '--directory', '/root/ca', '--to', to]);
    if (machine === b) await a.copyTo(b, [to]);
    const place = [
      'install',
      '-o',
      'mesh-node',
      '-g',
      'mesh-node',
      '-m',
      '600',
      '-t',
      '/etc/mesh-node/identity',
    ];
    await machine.must(['bash', '-c', `${place.join(' ')} ${to}/*`]);
    const key = '/etc/mesh-node/identity/node.key';
    expect(await machine.must(['stat', '-c', '%U %a', key])).toBe('mesh-node 600\n');
    await machine.write('/etc/mesh-node/catalogue.d/orders.yaml', catalogue());
  }
  await a.write('/etc/mesh-node/mesh-node.yaml', configuration());
  await b.write('/etc/mesh-node/mesh-node.yaml', 'node:\n  name: host-b\n');
  for (const machine of [a, b]) await machine.must(['mesh-node', 'validate']);
});

describe('systemctl', () => {
  const changed = configuration('capture:\n  protect: [tcp/22, tcp/2222]\n');

  test('enable --now: active, with rules, and a status', async () => {
    for (const machine of [a, b]) await machine.must(['systemctl', 'enable', '--now', UNIT]);
    expect(await a.show(UNIT, 'ActiveState')).toBe('active');
    expect(await a.show(UNIT, 'Type')).toBe('notify');
    // For IPv4 and IPv6: the capture port, names over UDP and TCP; and the tunnel port.
    expect(await a.show(UNIT, 'NFileDescriptorStore')).toBe('7');
    expect(await a.show(UNIT, 'StatusText')).toBe('host-a in default');
    expect(await a.host.must(['iptables-save', '-t', 'nat'])).toContain('-A OUTPUT -j MESH_OUT');
    await waitFor('ready', async () => ((await a.api('/v1/ready')) as ReadyAnswer).ready);
    expect(await a.must(['mesh-node', 'status'])).toMatch(/^ready +yes$/m);
    const check = await a.exec(['mesh-node', 'check']);
    expect(check.stdout + check.stderr).not.toContain('✗');
    expect(check.code).toBe(0);
  });

  test.each(['ipv4', 'ipv6'] as const)('a connection is intercepted and carried (%s)', async (family) => {
    expect(await caller(family)).toBe('mesh');
    const destination = at(b.host.address(family), PORT);
    const line = await waitFor('the access log', async () => {
      const last = await lastAccess(a);
      return last?.destination === destination && last;
    });
    expect(line).toMatchObject({ path: 'tunnel', service: 'orders', callerService: 'shop', reason: 'done' });
    const there = await waitFor('the access log of the other host', async () => {
      const last = await lastAccess(b);
      return last?.instance === destination && last;
    });
    expect(there).toMatchObject({ direction: 'inbound', path: 'local', callerService: 'shop' });
  });

  test('the journal has JSON lines and nothing else', async () => {
    for (const machine of [a, b]) {
      const lines = await machine.journal(UNIT);
      expect(lines.length).toBeGreaterThan(5);
      for (const line of lines) expect(JSON.parse(line)).toMatchObject({ time: expect.any(String) });
      expect(lines.filter((line) => /"level":"(?:warn|error|fatal)"/.test(line))).toEqual([]);
    }
  });

  test('user mesh-node with NET_ADMIN and NET_RAW; workers with nothing', async () => {
    const pid = await supervisor(a);
    const children = await a.must(['cat', `/proc/${pid}/task/${pid}/children`]);
    const workers = children.trim().split(' ');
    const facts = async (process: string) => {
      const text = await a.must(['cat', `/proc/${process}/status`]);
      const field = (name: string) => new RegExp(`^${name}:\\s+(\\S+)`, 'm').exec(text)?.[1] ?? '';
      return {
        uid: field('Uid'),
        effective: BigInt(`0x${field('CapEff')}`),
        permitted: BigInt(`0x${field('CapPrm')}`),
        bounding: BigInt(`0x${field('CapBnd')}`),
        ambient: BigInt(`0x${field('CapAmb')}`),
        noNewPrivileges: field('NoNewPrivs'),
        seccomp: field('Seccomp'),
      };
    };
    const uid = (await a.must(['id', '-u', 'mesh-node'])).trim();
    const both = (1n << NET_ADMIN) | (1n << NET_RAW);
    const common = { uid, bounding: both, ambient: 0n, noNewPrivileges: '1', seccomp: '2' };
    expect(await facts(pid)).toEqual({ ...common, effective: both, permitted: both });
    for (const worker of workers)
      expect(await facts(worker)).toEqual({ ...common, effective: 0n, permitted: 0n });
  });

  test('reload takes a new configuration, without a new process', async () => {
    const pid = await supervisor(a);
    await a.write(
      '/etc/mesh-node/mesh-node.yaml',
      configuration('capture:\n  protect: [tcp/22, tcp/2222]\n'),
    );
    await a.must(['systemctl', 'reload', UNIT]);
    await waitFor('the rule stands', async () =>
      (await a.host.must(['iptables-save', '-t', 'nat'])).includes('--dport 2222 -j RETURN'),
    );
    expect(await supervisor(a)).toBe(pid);
    expect(await caller()).toBe('mesh');
  });

  test.each([
    ['systemctl reload', ['systemctl', 'reload', UNIT], 1],
    ['SIGHUP', ['systemctl', 'kill', '--kill-who=main', '--signal=HUP', UNIT], 0],
  ] as const)('%s refuses a wrong configuration, and the old one runs on', async (_what, command, code) => {
    const pid = await supervisor(a);
    const known = (await a.journal(UNIT)).length;
    await a.write('/etc/mesh-node/mesh-node.yaml', configuration('capture:\n  mod: all\n'));
    expect((await a.exec(command)).code).toBe(code);
    await waitFor('the reason is in the journal', async () =>
      (await a.journal(UNIT)).slice(known).some((line) => line.includes('/mesh-node.yaml:7:3: capture.mod')),
    );
    expect(await a.show(UNIT, 'ActiveState')).toBe('active');
    expect(await supervisor(a)).toBe(pid);
    expect(await a.host.must(['iptables-save', '-t', 'nat'])).toContain('--dport 2222 -j RETURN');
    expect(await caller()).toBe('mesh');
    await a.write('/etc/mesh-node/mesh-node.yaml', changed);
    await a.must(['systemctl', 'reload', UNIT]);
  });
});

describe('failures', () => {
  /** One connection after the other on a, in a shell of its own; what each of them met, in order. */
  async function watch(incident: () => Promise<void>): Promise<string[]> {
    const url = `http://${at(b.host.ipv4, PORT)}/`;
    const script = `while :; do curl -sS --max-time 5 ${url} 2>/dev/null || echo failed; sleep 0.05; done`;
    const running = a.host.spawn('connections', ['sh', '-c', script]);
    const seen = () => running.output.split('\n').filter((line) => line !== '');
    await waitFor('connections', () => seen().length > 3);
    await incident();
    const sofar = seen().length;
    await waitFor('more connections', () => seen().length > sofar + 3);
    await running.stop();
    return seen().map((line) =>
      line === 'failed' ? 'failed' : line === `b ${b.host.ipv4}` ? 'mesh' : 'direct',
    );
  }

  test('the supervisor is killed: workers serve on, the rules stay, and the next one adopts them', async () => {
    const pid = await supervisor(a);
    const [worker] = await workers();
    const seen = await watch(async () => {
      await a.must(['kill', '-KILL', pid]);
      await a.waitActive(UNIT, pid);
    });
    expect(new Set(seen)).toEqual(new Set(['mesh']));
    await waitFor('the worker is adopted', async () => (await workers())[0] === worker);
    const said = await a.journal(UNIT, 'withdraw-rules');
    expect(said).toContain('mesh-node: workers still serve; the rules stay');
  });

  test('a worker dies again and again: the supervisor replaces it', async () => {
    const pid = await supervisor(a);
    for (let times = 0; times < 4; times++) {
      const [worker] = await workers();
      await a.must(['kill', '-KILL', `${worker}`]);
      await waitFor('another worker', async () => {
        const [now] = await workers();
        return now !== undefined && now !== worker;
      });
    }
    await waitFor('it serves', async () => (await caller()) === 'mesh');
    expect(await supervisor(a)).toBe(pid);
  });

  test('the host is powered off and on again, and its registry is gone: the agent serves what it knew', async () => {
    await a.must(['rm', '-r', '/etc/mesh-node/catalogue.d']);
    await a.powerOff();
    // The network namespace outlives this machine: what a real one would have forgotten is taken out of it.
    await removeOurs(a);
    await a.boot();
    await a.waitActive(UNIT);
    await waitFor('it serves', async () => (await caller()) === 'mesh');
    await a.must(['mkdir', '/etc/mesh-node/catalogue.d']);
    await a.write('/etc/mesh-node/catalogue.d/orders.yaml', catalogue());
  });
});

test('systemctl stop is quick and intercepts nothing any more; connections go direct', async () => {
  const began = performance.now();
  await a.must(['systemctl', 'stop', UNIT]);
  expect(performance.now() - began).toBeLessThan(5000);
  expect(await a.show(UNIT, 'Result')).toBe('success');
  expect(await a.show(UNIT, 'NFileDescriptorStore')).toBe('0');
  expect(await ours(a)).not.toContain('REDIRECT');
  expect(await caller()).toBe('direct');
});

test('mesh-node drain: the agent ends, and stays away until it is started', async () => {
  // Also when the script finds something to complain about: a file that the daemon cannot replace.
  await a.must(['sh', '-c', `echo garbage >/run/garbage; touch ${LEFT}; mount --bind /run/garbage ${LEFT}`]);
  await a.must(['systemctl', 'start', UNIT]);
  await a.must(['mesh-node', 'drain']);
  await waitFor('it has ended', async () => (await a.show(UNIT, 'SubState')) === 'dead');
  const complaint = `${LEFT}:1: not a line that the agent writes: garbage`;
  await waitFor('it was said', async () =>
    (await a.journal(UNIT, 'withdraw-rules')).some((line) => line.includes(complaint)),
  );
  await a.must(['umount', LEFT]);
  expect(await a.show(UNIT, 'Result')).toBe('success');
  expect(await ours(a)).not.toContain('REDIRECT');
  expect(await caller()).toBe('direct');
});

test('a socket unit of the operator starts the agent, which listens there and nowhere else', async () => {
  const socket = 'mesh-node-tunnel.socket';
  const file = `/etc/systemd/system/${socket}`;
  const where = at(a.host.ipv4, 15_008);
  await a.write(file, `[Socket]\nListenStream=${where}\nFileDescriptorName=tunnel\nService=${UNIT}\n`);
  await a.must(['systemctl', 'daemon-reload']);
  await a.must(['systemctl', 'start', socket]);
  expect(await a.show(UNIT, 'ActiveState')).toBe('inactive');
  await b.host.must(['bash', '-c', `exec 3<>/dev/tcp/${a.host.ipv4}/15008`]);
  await a.waitActive(UNIT);
  await waitFor('it serves', async () => (await workers()).length > 0);
  const listening = await a.host.must(['ss', '-Hltn', 'sport', '=', ':15008']);
  expect(listening.trim().split('\n')).toHaveLength(1);
  expect(listening).toContain(where);
  await waitFor('it intercepts', async () => (await caller()) === 'mesh');
  await a.must(['systemctl', 'stop', socket, UNIT]);
  await a.must(['rm', file]);
  await a.must(['systemctl', 'daemon-reload']);
});

test('a start with a wrong configuration fails once, with the reason', async () => {
  await a.write('/etc/mesh-node/mesh-node.yaml', 'nod: {}\n');
  expect((await a.exec(['systemctl', 'start', UNIT])).code).not.toBe(0);
  expect(await a.show(UNIT, 'SubState')).toBe('failed');
  expect(await a.show(UNIT, 'NRestarts')).toBe('0');
  expect((await a.journal(UNIT)).at(-1)).toContain('/etc/mesh-node/mesh-node.yaml:1:1: nod: ');
  await a.write('/etc/mesh-node/mesh-node.yaml', configuration());
});

test('mesh-node-zone-agent takes the place of mesh-node', async () => {
  await a.must(['systemctl', 'start', UNIT]);
  await a.must(['systemctl', 'start', 'mesh-node-zone-agent.service']);
  expect(await a.show(UNIT, 'ActiveState')).toBe('inactive');
  expect(await a.must(['mesh-node', 'status'])).toMatch(/^node .*zone-agent\)$/m);
  expect(await caller()).toBe('mesh');
  await a.must(['systemctl', 'stop', 'mesh-node-zone-agent.service']);
  expect(await ours(a)).not.toContain('REDIRECT');
});

describe('scripts/uninstall', () => {
  test('keeps what the operator wrote, and says so', async () => {
    await a.must(['systemctl', 'start', UNIT]);
    const said = await a.must([`${CLONE}/scripts/uninstall`], { timeoutMs: 60_000 });
    expect(said).toContain('left: /etc/mesh-node');
    expect(await ours(a)).toBe('');
    expect(await a.show(UNIT, 'LoadState')).toBe('not-found');
    await a.must(['test', '-e', '/etc/mesh-node/identity/node.key']);
    expect(await caller()).toBe('direct');
  });

  test('--purge leaves nothing at all', async () => {
    await a.must([`${CLONE}/scripts/uninstall`, '--purge']);
    expect((await a.exec(['id', 'mesh-node'])).code).not.toBe(0);
    await a.must(['rm', '-r', '/root/ca', '/root/host-a', '/root/host-b']);
    expect(await files(a)).toEqual(before);
    expect(await a.must(['cat', '/etc/hosts'])).toBe(hosts);
    for (const name of ['passwd', 'group']) {
      expect(await readFile(join(a.written, 'etc', name), 'utf8')).not.toContain('mesh');
    }
    expect(await ours(a)).toBe('');
  });
});
