import { chmod, chown, mkdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Family, families } from '../../src/capture/names.ts';
import { type BackendName, LeftBehind, service, tool } from '../support/left-behind.ts';
import { must } from '../support/process.ts';
import { nginx } from '../support/servers.ts';
import { type Host, Topology } from '../support/topology.ts';

/*
 * The script that needs no Node, by itself: hosts on which an agent has been and is gone. It asks for nothing but a shell,
 * so nothing of ours runs here but what wrote its files.
 */

const PORT = 8080;
const STRICT_PORT = 8081;
const LOCAL_PORT = 8082;
const BRIDGE = 'br-test';
const VIRTUAL = { ipv4: '240.1.2.3', ipv6: 'fd6d:6573:6800::7' } as const;
const LOCAL_VIRTUAL = { ipv4: '240.5.5.5', ipv6: 'fd6d:6573:6800::5' } as const;
const STRICT_VIRTUAL = { ipv4: '240.9.9.9', ipv6: 'fd6d:6573:6800::9' } as const;

const backends: readonly BackendName[] = ['nft', 'legacy'];

let topology: Topology;
let a: Host;
let b: Host;
let left: LeftBehind;
let container: string;

beforeAll(async () => {
  topology = await Topology.create('mnfs', {
    networks: {
      other: { ipv4: '10.91.2', ipv6: 'fd91:2', router: false },
      lan: { ipv4: '10.91.1', ipv6: 'fd91:1', router: false },
    },
    // From its first address nothing finds the way back.
    hosts: { a: { other: 1, lan: 1 }, b: { lan: 2 } },
  });
  a = topology.host('a');
  b = topology.host('b');
  await Promise.all([...[PORT, STRICT_PORT].map((port) => nginx(b, port, 'b')), nginx(a, LOCAL_PORT, 'a')]);
  const services = [
    service('orders', PORT, VIRTUAL, (family) => b.address(family)),
    service('here', LOCAL_PORT, LOCAL_VIRTUAL, onLan),
    service('vault', STRICT_PORT, STRICT_VIRTUAL, (family) => b.address(family), 'strict'),
  ];
  left = await LeftBehind.on(a, services, `capture: {bridges: [${BRIDGE}]}`);
  await makeContainer();
});
afterAll(() => topology.stop());

/** A namespace behind a bridge of a, as container engines make them. */
async function makeContainer(): Promise<void> {
  container = `${a.namespace}c`;
  await must(['ip', 'netns', 'add', container]);
  const commands = [
    `link add ${BRIDGE} type bridge`,
    `addr add 172.30.91.1/24 dev ${BRIDGE}`,
    `addr add fd91:9::1/64 dev ${BRIDGE} nodad`,
    `link set ${BRIDGE} up`,
    `link add inside type veth peer name eth0 netns ${container}`,
    `link set inside master ${BRIDGE}`,
    'link set inside up',
  ];
  await must(['ip', '-n', a.namespace, '-batch', '-'], { input: `${commands.join('\n')}\n` });
  const own = [
    'link set lo up',
    'addr add 172.30.91.2/24 dev eth0',
    'addr add fd91:9::2/64 dev eth0 nodad',
    'link set eth0 up',
    'route add default via 172.30.91.1',
    '-6 route add default via fd91:9::1',
  ];
  for (const line of own) await must(['ip', '-n', container, ...line.split(' ')]);
  await a.must(['sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
}

const onLan = (family: Family): string => a.address(family, 'lan');

const well = (...args: readonly string[]): Promise<string> => left.well(...args);
const ours = (): Promise<string> => left.ours();
const call = (ip: string, port = PORT, from: readonly string[] = []): Promise<string> =>
  left.call(ip, port, from);

/** Rules and chains of others; built-in chains come with the first rule of a table and stay. */
async function foreign(backend: BackendName): Promise<string> {
  const saved = await Promise.all(families.map((family) => left.saved(family, backend)));
  return saved
    .join('')
    .split('\n')
    .filter((line) => /^(?:-A|:OTHER) /.test(line) && !/MESH_[A-Z_]+(?: |$)/.test(line))
    .sort()
    .join('\n');
}

beforeEach(async () => {
  await writeFile(left.hosts, '127.0.0.1 localhost\n');
  await rm(join(left.runtime, 'alive'), { force: true });
});

describe.each(backends)('the agent is gone (%s)', (backend) => {
  const others = `*nat
:OTHER - [0:0]
-A OTHER -p tcp -m tcp --dport 9 -j RETURN
-A OTHER -m comment --comment "they \\"said\\" -j MESH_OUT" -j RETURN
-A OUTPUT -j OTHER
COMMIT
*filter
-A INPUT -p tcp -m tcp --dport 9 -j DROP
COMMIT
`;
  let before: string;

  beforeAll(async () => {
    for (const family of families)
      await a.must([tool(family, backend, 'restore'), '--noflush'], { input: others });
    before = await foreign(backend);
    await left.intercept(backend);
  });
  afterAll(async () => {
    await well('--remove');
    for (const family of families)
      for (const table of ['nat', 'filter', 'mangle', 'raw', 'security']) {
        const program = tool(family, backend, 'save').replace('-save', '');
        await a.must([program, '-t', table, '-F']);
        await a.must([program, '-t', table, '-X']);
      }
  });

  test('it redirects where nobody is', async () => {
    for (const family of families) expect(await call(b.address(family))).toBe('curl 7');
  });

  test('new connections go direct, by address and virtual address; strict services refuse', async () => {
    const began = performance.now();
    expect(await well()).toBe('mesh-node: new connections go direct (by hand)\n');
    console.log(`withdraw-rules (${backend}): ${Math.round(performance.now() - began)} ms`);
    for (const family of families) {
      const direct = `b ${onLan(family)}`;
      expect(await call(b.address(family))).toBe(direct);
      expect(await call(VIRTUAL[family])).toBe(direct);
      for (const ip of [b.address(family), STRICT_VIRTUAL[family]])
        expect(await call(ip, STRICT_PORT), ip).toBe('curl 7');
      expect(await call(VIRTUAL[family], 9999), 'a port of no service').toBe('curl 7');
    }
    expect(await foreign(backend)).toBe(before);
  });

  test('an instance on this very host is reached as well', async () => {
    for (const family of families) expect(await call(LOCAL_VIRTUAL[family], LOCAL_PORT)).toMatch(/^a /);
  });

  test('containers behind a bridge are led to the instances, too', async () => {
    for (const family of families) {
      const inside = ['ip', 'netns', 'exec', container];
      expect(await call(VIRTUAL[family], PORT, inside)).toBe(`b ${onLan(family)}`);
      expect(await call(STRICT_VIRTUAL[family], STRICT_PORT, inside)).toBe('curl 7');
    }
  });

  test('again: nothing changes', async () => {
    const stands = await ours();
    expect(await well()).toBe('');
    expect(await ours()).toBe(stands);
    expect(stands).not.toMatch(/-p tcp -j REDIRECT|MESH_OUT|MESH_DNS|MESH_ALIVE|MESH_DST/);
  });

  test('again, after somebody took something away: it is put back', async () => {
    const program = tool('ipv4', backend, 'save').replace('-save', '');
    await a.must([program, '-t', 'nat', '-F', 'MESH_VIRT']);
    expect(await call(VIRTUAL.ipv4)).toBe('curl 7');
    await well();
    expect(await call(VIRTUAL.ipv4)).toBe(`b ${onLan('ipv4')}`);
  });

  test('a host that has just booted: the same from nothing', async () => {
    await well('--remove');
    expect(await ours()).toBe('');
    await well('now');
    for (const family of families) {
      expect(await call(VIRTUAL[family])).toBe(`b ${onLan(family)}`);
      expect(await call(b.address(family), STRICT_PORT)).toBe('curl 7');
    }
    expect(await foreign(backend)).toBe(before);
  });

  test('an agent comes back and is gone again: its newer sets stay', async () => {
    await a.must(['ipset', 'add', 'MESH_STRICT4', `${b.ipv4},tcp:${PORT}`]);
    await well();
    expect(await call(b.ipv4)).toBe('curl 7');
    await a.must(['ipset', 'del', 'MESH_STRICT4', `${b.ipv4},tcp:${PORT}`]);
    expect(await call(b.ipv4)).toBe(`b ${onLan('ipv4')}`);
  });

  test.each([
    ['are missing', 0, undefined],
    ['are cut', 1, (text: string) => text.slice(0, text.length / 2)],
    ['are garbage', 1, () => '\u0000\n*nat\n:MESH_X\n-A MESH_X; reboot\n# end\n'],
    ['do not fit this kernel', 1, (text: string) => text.replace(/(?<=--to-destination \S*:)\d+$/m, '99999')],
  ] as const)('its files %s: what redirects is emptied, refusals stay', async (_what, expected, damage) => {
    await well('--remove');
    await left.intercept(backend);
    const { texts } = left.said(backend);
    for (const [name, text] of Object.entries(texts)) await left.write({ [name]: damage?.(text ?? '') });
    const { code, stderr } = await left.run();
    expect(code, stderr).toBe(expected);
    for (const family of families) {
      expect(await call(b.address(family))).toBe(`b ${onLan(family)}`);
      expect(await call(b.address(family), STRICT_PORT)).toBe('curl 7');
    }
    expect(await foreign(backend)).toBe(before);
  });

  test('--remove leaves nothing of ours', async () => {
    await left.write(left.said(backend).texts);
    await well('now');
    expect(await ours()).not.toBe('');
    await well('--remove');
    expect(await ours()).toBe('');
    expect(await foreign(backend)).toBe(before);
    expect(await readFile(left.hosts, 'utf8')).toBe('127.0.0.1 localhost\n');
  });
});

describe('workers that outlived their supervisor', () => {
  beforeAll(() => left.intercept('nft'));
  afterAll(() => well('--remove'));
  const redirects = async (): Promise<boolean> => (await ours()).includes('-p tcp -j REDIRECT');
  /** Holds the file as a worker does. */
  const worker = async () => {
    await writeFile(join(left.runtime, 'alive'), '');
    const running = a.spawn('worker', ['flock', '--shared', join(left.runtime, 'alive'), 'sleep', '1000']);
    return running;
  };

  test('one serves: the rules stay', async () => {
    const running = await worker();
    const touch = setInterval(() => void utimes(join(left.runtime, 'alive'), new Date(), new Date()), 300);
    expect(await well()).toBe('mesh-node: workers still serve; the rules stay\n');
    clearInterval(touch);
    expect(await redirects()).toBe(true);
    await running.stop();
  });

  test('all are stopped: it waits for a sign of life, and then not any longer', async () => {
    const running = await worker();
    const began = performance.now();
    await well();
    console.log(`withdraw-rules, workers stopped: ${Math.round(performance.now() - began)} ms`);
    expect(await redirects()).toBe(false);
    await running.stop();
  });

  test('all are gone, and only their file is left', async () => {
    await well('--remove');
    await left.intercept('nft');
    await writeFile(join(left.runtime, 'alive'), '');
    await well();
    expect(await redirects()).toBe(false);
  });
});

describe('the hosts file', () => {
  const block = [
    '# mesh-node: begin (names without the agent)',
    `${LOCAL_VIRTUAL.ipv4} here.mesh`,
    `${LOCAL_VIRTUAL.ipv6} here.mesh`,
    `${VIRTUAL.ipv4} orders.mesh`,
    `${VIRTUAL.ipv6} orders.mesh`,
    `${STRICT_VIRTUAL.ipv4} vault.mesh`,
    `${STRICT_VIRTUAL.ipv6} vault.mesh`,
    '# mesh-node: end\n',
  ].join('\n');
  const text = () => readFile(left.hosts, 'utf8');
  beforeAll(() => left.write(left.said('nft').texts));
  afterAll(() => well('--remove'));

  test.each([
    ['as it usually is', '127.0.0.1\tlocalhost\n\n# ours\n10.0.0.1  a b  # c\n'],
    ['of another system', '127.0.0.1 localhost\r\n10.0.0.1 a\r\n'],
    ['empty', ''],
    ['with a beginning that somebody left', `x\n# mesh-node: begin (names without the agent)\n10.0.0.1 a\n`],
  ])('%s: our lines come once and go, the others stay as they are', async (_what, before) => {
    await writeFile(left.hosts, before);
    for (let i = 0; i < 2; i++) {
      await well('now');
      expect(await text()).toBe(before + block);
    }
    await well('serving');
    expect(await text()).toBe(before);
  });

  test('without an end of line it is without one afterwards', async () => {
    await writeFile(left.hosts, '127.0.0.1 localhost');
    for (let i = 0; i < 2; i++) {
      await well('now');
      expect(await text()).toBe(`127.0.0.1 localhost\n${block.replace('agent)', 'agent), joined')}`);
    }
    await well('serving');
    expect(await text()).toBe('127.0.0.1 localhost');
  });

  test('lines that came after ours stay, and ours are not there twice', async () => {
    await writeFile(left.hosts, `a\n${block}b\n${block}c\n`);
    await well('now');
    expect(await text()).toBe(`a\nb\nc\n${block}`);
  });

  test('mode and owner are kept, and nothing is written that is there already', async () => {
    await chmod(left.hosts, 0o640);
    await chown(left.hosts, 1234, 2345);
    await well('now');
    const first = await stat(left.hosts);
    expect([first.mode & 0o777, first.uid, first.gid]).toEqual([0o640, 1234, 2345]);
    await well('now');
    expect((await stat(left.hosts)).ino).toBe(first.ino);
  });

  test('only lines of our form are taken', async () => {
    await left.write({ hosts: '240.0.0.1 orders.mesh\n$(reboot) x\n240.0.0.2 a b\n240.0.0.3 X\n# end\n' });
    await well('now');
    expect((await text()).split('\n').filter((line) => line.startsWith('240'))).toEqual([
      '240.0.0.1 orders.mesh',
    ]);
    await left.write(left.said('nft').texts);
  });

  test('a mount point of its own, as in a container, is written in place', async () => {
    const directory = join(a.directory, 'container');
    await mkdir(directory);
    await writeFile(join(directory, 'hosts'), 'x\n');
    await topology.bind(join(a.directory, 'hosts'), join(directory, 'hosts'));
    await a.must(['mount', '-o', 'remount,rw,bind', join(directory, 'hosts')]);
    const outside = left.hosts;
    left.hosts = join(directory, 'hosts');
    try {
      await well('now');
      expect(await readFile(outside, 'utf8')).toBe(`127.0.0.1 localhost\n${block}`);
      await well('serving');
      expect(await readFile(outside, 'utf8')).toBe('127.0.0.1 localhost\n');
    } finally {
      left.hosts = outside;
    }
  });

  test('no room beside it: it is left as it is, and everything else is done', async () => {
    const directory = join(a.directory, 'full');
    await mkdir(directory);
    await topology.mount(directory, '64k');
    const outside = left.hosts;
    left.hosts = join(directory, 'hosts');
    try {
      await writeFile(left.hosts, '127.0.0.1 localhost\n');
      await a.exec(['dd', 'if=/dev/zero', `of=${join(directory, 'filler')}`, 'bs=4k']);
      const { code, stderr } = await left.run('now');
      expect(code).toBe(0);
      expect(stderr).toContain('names are left as they are');
      expect(await text()).toBe('127.0.0.1 localhost\n');
      expect(await call(VIRTUAL.ipv4)).toBe(`b ${onLan('ipv4')}`);
      expect((await a.must(['ls', '-A', directory])).split('\n')).toEqual(['filler', 'hosts', '']);
    } finally {
      left.hosts = outside;
    }
  });
});

test('an unknown word is refused', async () => {
  expect((await left.run('everything')).code).toBe(2);
});
