import { chown, mkdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { families } from '../../src/capture/names.ts';
import { AGENT_UID, type BackendName, LeftBehind, service, tool } from '../support/left-behind.ts';
import { nginx } from '../support/servers.ts';
import { type Host, Topology } from '../support/topology.ts';

/*
 * The script runs as root, the files belong to the agent's user: what somebody who has taken a worker over can write into them,
 * and what comes of it. Nothing but what rules of ours say, in time, and no more than the agent's user may do anyway.
 */

const PORT = 8080;
const STRICT_PORT = 8081;
const VIRTUAL = { ipv4: '240.1.2.3', ipv6: 'fd6d:6573:6800::7' } as const;
const STRICT_VIRTUAL = { ipv4: '240.9.9.9', ipv6: 'fd6d:6573:6800::9' } as const;
/** Bound on one run with whatever files; the script's own are 20 and 2 s, of which none is needed here but the second. */
const IN_TIME_MS = 10_000;

let topology: Topology;
let a: Host;
let b: Host;
let left: LeftBehind;

beforeAll(async () => {
  topology = await Topology.create('mnff', {
    networks: { lan: { ipv4: '10.94.1', ipv6: 'fd94:1', router: false } },
    hosts: { a: { lan: 1 }, b: { lan: 2 } },
  });
  a = topology.host('a');
  b = topology.host('b');
  await Promise.all([PORT, STRICT_PORT].map((port) => nginx(b, port, 'b')));
  left = await LeftBehind.on(a, [
    service('orders', PORT, VIRTUAL, (family) => b.address(family)),
    service('vault', STRICT_PORT, STRICT_VIRTUAL, (family) => b.address(family), 'strict'),
  ]);
});
afterAll(() => topology.stop());

/** A host that the agent has just left, in both files and kernel. */
async function freshly(backend: BackendName = 'nft'): Promise<void> {
  await left.well('--remove');
  await rm(left.runtime, { recursive: true, force: true });
  await mkdir(left.runtime, { mode: 0o700 });
  await chown(left.runtime, AGENT_UID, AGENT_UID);
  await writeFile(left.configuration, '');
  await writeFile(left.hosts, '127.0.0.1 localhost\n');
  await left.intercept(backend);
}

async function refusesStrict(): Promise<void> {
  for (const family of families)
    for (const ip of [b.address(family), STRICT_VIRTUAL[family]])
      expect(await left.call(ip, STRICT_PORT), ip).toMatch(/^curl (?:7|28)$/);
}

async function goesDirect(): Promise<void> {
  for (const family of families)
    expect(await left.call(b.address(family), PORT)).toBe(`b ${a.address(family)}`);
}

/** Runs the script with these shell scripts in place of programs. */
async function withPrograms(programs: Readonly<Record<string, string>>, ...args: string[]) {
  const directory = join(a.directory, 'programs');
  await mkdir(directory);
  for (const [name, text] of Object.entries(programs))
    await writeFile(join(directory, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  const path = `PATH=${directory}:/usr/sbin:/usr/bin:/sbin:/bin`;
  const outcome = await a.exec(['env', path, ...left.command(...args)], { env: left.environment });
  await rm(directory, { recursive: true });
  return outcome;
}

const names = async (): Promise<string[]> =>
  (await readFile(left.hosts, 'utf8')).split('\n').filter((line) => /^[0-9a-f:.]+ .*\./.test(line));

describe('files', () => {
  beforeEach(() => freshly());

  test('what is noted is the agent user’s own; a link in its place leads nowhere', async () => {
    const victim = join(a.directory, 'victim');
    await writeFile(victim, 'precious\n');
    const notes = ['iptables', 'ip6tables'].map((program) => join(left.runtime, `unattended-${program}-nft`));
    for (const note of notes) await symlink(victim, note);
    await left.well();
    expect(await readFile(victim, 'utf8')).toBe('precious\n');
    for (const note of notes) expect((await stat(note)).uid).toBe(AGENT_UID);
    expect(await left.well(), 'it serves its purpose').toBe('');
    await goesDirect();
  });

  test.each([
    ['rules-ipv4', 1],
    ['sets', 1],
    ['routes', 0],
    ['hosts', 0],
  ] as const)(
    'a pipe in place of %s: nobody waits for it, and what redirects is gone',
    async (name, code) => {
      await rm(left.file(name));
      await a.must(['mkfifo', left.file(name)]);
      for (const pipe of ['alive', 'unattended-iptables-nft', 'unattended-ip6tables-nft'])
        await a.must(['mkfifo', join(left.runtime, pipe)]);
      const began = performance.now();
      expect((await left.run()).code).toBe(code);
      expect(performance.now() - began).toBeLessThan(IN_TIME_MS);
      await goesDirect();
      await refusesStrict();
    },
  );

  test('a program in place of a rule is not run', async () => {
    const program = join(a.directory, 'program');
    const ran = join(left.runtime, 'ran');
    await writeFile(program, `#!/bin/sh\ntouch ${ran}\n`, { mode: 0o755 });
    const { texts } = left.said('nft');
    const line = `-A MESH_KEEP --modprobe=${program} -m nonsense -j RETURN\n`;
    await left.write({ 'rules-ipv4': texts['rules-ipv4']!.replace(/^(?=-A MESH_KEEP)/m, line) });
    const { code, stderr } = await left.run();
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(line.trim().slice(0, 60)),
    });
    await expect(stat(ran)).rejects.toThrow('ENOENT');
    await goesDirect();
    await refusesStrict();
  });

  test('what is not a virtual address is led nowhere', async () => {
    const { texts } = left.said('nft');
    const thief = `-A MESH_VIRT -d ${b.ipv4}/32 -p tcp -m tcp --dport ${PORT} -j DNAT --to-destination ${b.ipv4}:1\n`;
    await left.write({ 'rules-ipv4': texts['rules-ipv4']!.replace(/^(?=-A MESH_VIRT )/m, thief) });
    const { code, stderr } = await left.run();
    expect(stderr).toContain('left out 1 rules that lead other addresses than virtual ones elsewhere');
    expect(code).toBe(1);
    await goesDirect();
    expect(await left.call(VIRTUAL.ipv4, PORT)).toBe(`b ${a.ipv4}`);
  });

  test('unattended-rules cannot be run as the agent’s user: what redirects is emptied, and it is said', async () => {
    const { code, stderr } = await withPrograms({ setpriv: 'exit 127' }, 'now');
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: 'mesh-node: what holds without the agent could not be put in place\n',
    });
    await goesDirect();
    await refusesStrict();
  });
});

describe('a host that boots', () => {
  beforeEach(async () => {
    await freshly();
    await left.well('--remove');
    await rm(left.runtime, { recursive: true });
  });

  test('it is said', async () => {
    expect(await left.well('boot')).toBe('mesh-node: new connections go direct (the host boots)\n');
    await goesDirect();
    await refusesStrict();
  });

  // Before the legacy tables are made: they stay as long as the namespace.
  test.each([
    ['legacy', true],
    ['nf_tables', false],
  ])(
    'whose iptables is the one of %s: modules are loaded by root where iptables itself would',
    async (kind, loaded) => {
      const asked = join(a.directory, `asked-${kind}`);
      const iptables = `echo 'iptables v1.8.9 (${kind})'`;
      await withPrograms({ iptables, modprobe: `echo "$@ $(id -u)" >>${asked}` }, 'boot');
      const said = await readFile(asked, 'utf8').catch(() => undefined);
      expect(said).toBe(loaded ? '-qa ip_tables ip6_tables 0\n' : undefined);
    },
  );

  test('with iptables-legacy, whose lock the agent’s user may not open', async () => {
    await left.write(left.said('legacy').texts);
    await left.well('boot');
    for (const family of families)
      expect(await left.saved(family, 'legacy')).toContain('-A OUTPUT -j MESH_GUARD');
    await goesDirect();
    await refusesStrict();
    await left.well('--remove');
    for (const family of families)
      for (const table of ['raw', 'mangle', 'nat', 'filter', 'security'])
        await a.must([tool(family, 'legacy', 'save').replace('-save', ''), '-t', table, '-X']);
  });

  test('rules of the nat table that this kernel does not take: refusals stand, and it is said', async () => {
    for (const name of ['rules-ipv4', 'rules-ipv6'] as const) {
      const text = left.said('nft').texts[name]!;
      await left.write({ [name]: text.replace(/(?<=--to-destination \S*:)\d+$/m, '99999') });
    }
    const { code, stderr } = await left.run('boot');
    expect(code).toBe(1);
    for (const program of ['iptables', 'ip6tables'])
      expect(stderr).toContain(`mesh-node: ${program} (nft): the table nat cannot be changed`);
    await goesDirect();
    await refusesStrict();
  });
});

test('another tool’s rule before our jump: ours comes first again', async () => {
  await freshly();
  await left.well();
  expect(await left.well(), 'nothing changes').toBe('');
  for (const program of ['iptables-nft', 'ip6tables-nft']) {
    const first = () => a.must(['sh', '-c', `${program} -S OUTPUT | sed -n 2p`]);
    expect(await first()).toBe('-A OUTPUT -j MESH_GUARD\n');
    await a.must([program, '-I', 'OUTPUT', '-j', 'ACCEPT']);
    expect(await first()).toBe('-A OUTPUT -j ACCEPT\n');
    await left.well();
    expect(await first()).toBe('-A OUTPUT -j MESH_GUARD\n');
    await a.must([program, '-D', 'OUTPUT', '-j', 'ACCEPT']);
  }
});

describe('names', () => {
  const said = [
    '240.0.0.1 orders.mesh',
    '240.0.0.2 orders.corp.example',
    '192.0.2.1 localhost',
    '192.0.2.2 deb.debian.org',
    '192.0.2.3 mesh',
    '192.0.2.4 .mesh',
    '192.0.2.5 evilmesh',
    '192.0.2.6 a.mesh b.mesh',
  ];
  beforeAll(async () => {
    await freshly();
    await left.write({ hosts: `${said.join('\n')}\n# end\n` });
  });

  test.each([
    ['no configuration', '', 'mesh'],
    [
      'a block',
      'node:\n  name: a\nnames: # of services\n  ttl: 5s\n\n  domain: corp.example # ours\nbalance: {}\n',
      'corp',
    ],
    ['quotes', `"names":\n    'domain': "corp.example"\n`, 'corp'],
    ['braces', 'node: {name: a}\nnames: {ttl: 5s, domain: corp.example}\n', 'corp'],
    ['JSON', JSON.stringify({ node: { name: 'a' }, names: { domain: 'corp.example' } }), 'corp'],
    ['lines of JSON', JSON.stringify({ names: { domain: 'corp.example', ttl: '5s' } }, null, 2), 'corp'],
    [
      'another section',
      'zone:\n  domain: corp.example\nnames:\n  ttl: 5s\nother:\n  domain: corp.example\n',
      'mesh',
    ],
    ['a comment', 'names:\n  # domain: corp.example\n  ttl: 5s\n', 'mesh'],
  ])('of the domain alone: %s', async (_what, text, domain) => {
    await writeFile(left.configuration, text);
    await left.run('now');
    expect(await names()).toEqual([domain === 'mesh' ? said[0] : said[1]]);
  });

  test('a configuration that others than root can write is not asked', async () => {
    await writeFile(left.configuration, 'names: {domain: corp.example}\n');
    await chown(left.configuration, AGENT_UID, 0);
    await left.run('now');
    expect(await names()).toEqual([said[0]]);
    await chown(left.configuration, 0, 0);
  });
});
