import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { containerClaims } from '../../../src/caller/container-addresses.ts';
import type { Ip } from '../../../src/model/address.ts';

let root: string;
const at = (path: string) => join(root, path);
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'containers-'));
  await namespace('host', '10.0.0.1', 'fd000000000000000000000000000001');
  await process('self', 'host');
});
afterEach(() => rm(root, { recursive: true, force: true }));

/** A network namespace with these addresses. */
async function namespace(name: string, ipv4: string, ipv6?: string): Promise<void> {
  await mkdir(at(`net/${name}`), { recursive: true });
  await writeFile(at(`net/${name}/dev`), '');
  await writeFile(at(`net/${name}/fib_trie`), `Local:\n  |-- ${ipv4}\n     /32 host LOCAL\n`);
  await writeFile(at(`net/${name}/if_inet6`), ipv6 === undefined ? '' : `${ipv6} 02 40 00 80 eth0\n`);
}

/** A process in this network namespace, of this cgroup. */
async function process(pid: string, name: string, path = '/init.scope'): Promise<void> {
  await mkdir(at(`proc/${pid}`), { recursive: true });
  await symlink(at(`net/${name}`), at(`proc/${pid}/net`));
  await writeFile(at(`proc/${pid}/cgroup`), `4:memory:/elsewhere\n0::${path}\n`);
}

/** A container has its cgroup, and one process in a network namespace of that name. */
const full = (id: string) => id.repeat(64);
const short = (id: string) => id.repeat(12);
const scope = (id: string) => `/system.slice/docker-${full(id)}.scope`;
async function container(id: string, pid: string, name: string): Promise<void> {
  await process(pid, name, `${scope(id)}/init`);
  await mkdir(at(`cgroup${scope(id)}`), { recursive: true });
}
const directories = (...ids: readonly string[]) =>
  new Map(ids.map((id) => [short(id), [at(`cgroup${scope(id)}`)]]));

const read = (containers: ReadonlyMap<string, readonly string[]>) => containerClaims(containers, at('proc'));
const ip = (text: string) => text as Ip;

describe('addresses of containers', () => {
  test('are those of the network namespaces that only their processes are in', async () => {
    await namespace('one', '172.17.0.2', 'fd820001000000000000000000000005');
    await container('a', '41', 'one');
    await process('42', 'one', scope('a'));
    await process('43', 'host');
    const claims = await read(directories('a'));
    expect([...claims.keys()]).toEqual(['172.17.0.2', 'fd82:1::5']);
    expect(claims.get(ip('172.17.0.2'))).toMatchObject({
      identity: { text: `container:${short('a')}` },
      directory: at(`cgroup${scope('a')}`),
    });
  });

  test("are not this host's, and nobody's when two namespaces have them", async () => {
    await namespace('thief', '10.0.0.1');
    await namespace('one', '172.17.0.2');
    await namespace('two', '172.17.0.2');
    await container('a', '41', 'thief');
    await container('b', '42', 'one');
    await container('c', '43', 'two');
    await container('d', '44', 'host');
    expect([...(await read(directories('a', 'b', 'c', 'd')))]).toEqual([['172.17.0.2', 'shared']]);
  });

  test("are nobody's when the processes of a namespace are not all of one container", async () => {
    await namespace('pod', '172.17.0.2');
    await container('a', '41', 'pod');
    await container('b', '42', 'pod');
    await namespace('entered', '172.17.0.3');
    await container('c', '43', 'entered');
    await process('44', 'entered', '/system.slice/orders.service');
    expect([...(await read(directories('a', 'b', 'c')))]).toEqual([
      ['172.17.0.2', 'shared'],
      ['172.17.0.3', 'shared'],
    ]);
  });

  test("are nobody's when one container made several namespaces, of which one has the address of another", async () => {
    await namespace('own', '172.17.0.2');
    await namespace('made', '172.17.0.3');
    await namespace('other', '172.17.0.3');
    await container('a', '41', 'own');
    await process('42', 'made', scope('a'));
    await container('b', '43', 'other');
    const claims = await read(directories('a', 'b'));
    expect(claims.get(ip('172.17.0.2'))).toMatchObject({ identity: { text: `container:${short('a')}` } });
    expect(claims.get(ip('172.17.0.3'))).toBe('shared');
  });

  test('are not known where processes are hidden, of no container, or of one that is gone', async () => {
    await namespace('unit', '172.17.0.2');
    await process('41', 'unit', '/system.slice/orders.service');
    await namespace('gone', '172.17.0.3');
    await container('a', '42', 'gone');
    await rm(at(`cgroup${scope('a')}`), { recursive: true });
    await namespace('new', '172.17.0.4');
    await container('b', '43', 'new');
    await mkdir(at('proc/99'));
    await mkdir(at('proc/irq'));
    expect([...(await read(directories('a')))]).toEqual([]);
    await rm(at('proc'), { recursive: true });
    expect([...(await read(directories('a')))]).toEqual([]);
  });
});
