import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { CgroupWalks } from '../../../src/caller/cgroup-walks.ts';
import { containerClaims } from '../../../src/caller/container-addresses.ts';
import { ContainerCallers } from '../../../src/caller/container-callers.ts';
import { type Identity, Naming } from '../../../src/caller/identity.ts';
import type { ClientAddress, Ip } from '../../../src/model/address.ts';
import { waitFor } from '../../support/process.ts';

let root: string;
const at = (path: string) => join(root, path);
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'containers-'));
  await process('self', '10.0.0.1', 'fd000000000000000000000000000001');
});
afterEach(() => rm(root, { recursive: true, force: true }));

/** A process with these addresses in its network namespace. */
async function process(pid: string, ipv4: string, ipv6?: string): Promise<void> {
  await mkdir(at(`proc/${pid}/net`), { recursive: true });
  await writeFile(at(`proc/${pid}/net/fib_trie`), `Local:\n  |-- ${ipv4}\n     /32 host LOCAL\n`);
  await writeFile(at(`proc/${pid}/net/if_inet6`), ipv6 === undefined ? '' : `${ipv6} 02 40 00 80 eth0\n`);
}

/** The cgroup of a container; `pids` as its cgroup.procs has them. */
async function cgroup(name: string, pids: string): Promise<string> {
  await mkdir(at(`cgroup/${name}`), { recursive: true });
  await writeFile(at(`cgroup/${name}/cgroup.procs`), pids);
  return at(`cgroup/${name}`);
}

const read = (containers: ReadonlyMap<string, readonly string[]>) => containerClaims(containers, at('proc'));
const ip = (text: string) => text as Ip;

describe('addresses of containers', () => {
  test('are those of the network namespace of their first process', async () => {
    await process('41', '172.17.0.2', 'fd820001000000000000000000000005');
    const outer = await cgroup('one', '');
    const inner = await cgroup('one/init', '41\n42\n');
    const claims = await read(new Map([['aaa', [outer, inner]]]));
    expect([...claims.keys()]).toEqual(['172.17.0.2', 'fd82:1::5']);
    expect(claims.get(ip('172.17.0.2'))).toMatchObject({
      identity: { text: 'container:aaa' },
      directory: outer,
    });
  });

  test("are not this host's, and nobody's when several share them", async () => {
    await process('41', '10.0.0.1');
    await process('42', '172.17.0.2');
    await process('43', '172.17.0.2');
    const claims = await read(
      new Map([
        ['host', [await cgroup('host', '41\n')]],
        ['aaa', [await cgroup('one', '42\n')]],
        ['bbb', [await cgroup('two', '43\n')]],
      ]),
    );
    expect([...claims]).toEqual([['172.17.0.2', 'shared']]);
  });

  test('are not known where processes are hidden, gone or of another pid namespace', async () => {
    const containers = new Map([
      ['hidden', [await cgroup('one', '99\n')]],
      ['empty', [await cgroup('two', '')]],
      ['elsewhere', [await cgroup('three', '0\n')]],
      ['garbage', [await cgroup('four', 'x/../../41\n')]],
      ['gone', [at('cgroup/gone')]],
    ]);
    expect([...(await read(containers))]).toEqual([]);
  });
});

describe('a caller behind a bridge', () => {
  let containers: Map<string, string[]>;
  let walked: () => Promise<void>;
  let wanted: number;
  let callers: ContainerCallers;
  beforeEach(() => {
    containers = new Map();
    wanted = 0;
    const walks = {
      get tree() {
        return { names: new Map(), containers };
      },
      want: () => wanted++,
    } as unknown as CgroupWalks;
    callers = new ContainerCallers(walks, () => 10_000, read);
    walked = () => callers.walked(performance.now() + 1);
  });
  afterEach(() => callers.close());

  const client = { ip: ip('172.17.0.2'), port: 1 } as ClientAddress;
  const other = { ip: ip('172.17.0.3'), port: 1 } as ClientAddress;
  const found = (who = client): Promise<Identity> =>
    new Promise((resolve) => {
      const answer = callers.find(who);
      if (answer instanceof Naming) answer.wait(resolve);
      else resolve(answer);
    });

  test('is named after one walk, and known from then on', async () => {
    await process('41', '172.17.0.2');
    containers.set('aaa', [await cgroup('one', '41\n')]);
    const naming = found();
    expect(wanted).toBe(1);
    await walked();
    expect(await naming).toEqual({ text: 'container:aaa', caller: { container: 'aaa' } });
    expect(callers.find(client)).toMatchObject({ text: 'container:aaa' });
  });

  test('is unknown when no container has its address', async () => {
    const naming = found();
    await walked();
    expect(await naming).toMatchObject({ text: 'unknown' });
    expect(callers.find(client)).toMatchObject({ text: 'unknown' });
    expect(wanted).toBe(1);
  });

  /** As {@link found}, once what was known of it counts no more. */
  const later = async (who: ClientAddress): Promise<string> => {
    await waitFor('it is asked for again', () => callers.find(who) instanceof Naming);
    return (await found(who)).text;
  };

  test('whose address another container has meanwhile is not taken for the first', async () => {
    await process('41', '172.17.0.2');
    containers.set('aaa', [await cgroup('one', '41\n')]);
    const naming = found();
    await walked();
    await naming;
    await rm(at('cgroup/one'), { recursive: true });
    containers = new Map([['bbb', [await cgroup('two', '41\n')]]]);
    const renamed = later(client);
    await waitFor('a walk is wanted', () => wanted === 2);
    await walked();
    expect(await renamed).toBe('container:bbb');
  });

  test('that swapped addresses with another is known by what was read last, for whichever address', async () => {
    await process('41', '172.17.0.2');
    await process('42', '172.17.0.3');
    containers.set('aaa', [await cgroup('one', '41\n')]).set('bbb', [await cgroup('two', '42\n')]);
    const both = [found(client), found(other)];
    await walked();
    expect((await Promise.all(both)).map(({ text }) => text)).toEqual(['container:aaa', 'container:bbb']);
    await rm(at('cgroup'), { recursive: true });
    await cgroup('unrelated', '');
    containers = new Map([
      ['aaa', [await cgroup('three', '42\n')]],
      ['bbb', [await cgroup('four', '41\n')]],
    ]);
    const before = wanted;
    const first = later(client);
    await waitFor('a walk is wanted', () => wanted > before);
    await walked();
    expect([await first, await later(other)]).toEqual(['container:bbb', 'container:aaa']);
  });
});
