import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { CgroupWalks } from '../../../src/caller/cgroup-walks.ts';
import type { Claim } from '../../../src/caller/container-addresses.ts';
import { ContainerCallers } from '../../../src/caller/container-callers.ts';
import { type Identity, identityOf, Naming } from '../../../src/caller/identity.ts';
import type { ClientAddress, Ip } from '../../../src/model/address.ts';
import { waitFor } from '../../support/process.ts';

describe('a caller behind a bridge', () => {
  let root: string;
  let claims: Map<Ip, Claim | 'shared'>;
  let reads: number;
  let walked: () => Promise<void>;
  let wanted: number;
  let callers: ContainerCallers;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'containers-'));
    claims = new Map();
    wanted = reads = 0;
    const walks = { tree: { containers: new Map() }, want: () => wanted++ } as unknown as CgroupWalks;
    callers = new ContainerCallers(
      walks,
      () => 10_000,
      async () => {
        reads++;
        return new Map(claims);
      },
    );
    walked = () => callers.walked(performance.now() + 1);
  });
  afterEach(async () => {
    vi.useRealTimers();
    callers.close();
    await rm(root, { recursive: true, force: true });
  });

  /** What is found of a container, which has a cgroup of its own. */
  async function claim(container: string, cgroup = container): Promise<Claim> {
    const directory = join(root, cgroup);
    await mkdir(directory, { recursive: true });
    return { identity: identityOf({ container }), directory, inode: (await stat(directory)).ino };
  }

  const client = { ip: '172.17.0.2' as Ip, port: 1 } as ClientAddress;
  const other = { ip: '172.17.0.3' as Ip, port: 1 } as ClientAddress;
  const found = (who = client): Promise<Identity> =>
    new Promise((resolve) => {
      const answer = callers.find(who);
      if (answer instanceof Naming) answer.wait(resolve);
      else resolve(answer);
    });

  test('is named after one walk, and known from then on', async () => {
    claims.set(client.ip, await claim('aaa'));
    const naming = found();
    expect(wanted).toBe(1);
    await walked();
    expect(await naming).toEqual({ text: 'container:aaa', caller: { container: 'aaa' } });
    expect(callers.find(client)).toMatchObject({ text: 'container:aaa' });
  });

  test.each([
    ['no container has its address', []],
    ['nobody can tell whose address it is', [[client.ip, 'shared']]],
  ] as const)('is unknown when %s', async (_what, known) => {
    claims = new Map(known);
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
    claims.set(client.ip, await claim('aaa'));
    const naming = found();
    await walked();
    await naming;
    await rm(join(root, 'aaa'), { recursive: true });
    claims.set(client.ip, await claim('bbb'));
    const renamed = later(client);
    await waitFor('a walk is wanted', () => wanted === 2);
    await walked();
    expect(await renamed).toBe('container:bbb');
  });

  test('that swapped addresses with another is known by what was read last, for whichever address', async () => {
    claims.set(client.ip, await claim('aaa')).set(other.ip, await claim('bbb'));
    const both = [found(client), found(other)];
    await walked();
    expect((await Promise.all(both)).map(({ text }) => text)).toEqual(['container:aaa', 'container:bbb']);
    for (const name of ['aaa', 'bbb']) await rm(join(root, name), { recursive: true });
    await claim('unrelated');
    claims = new Map([
      [other.ip, await claim('aaa', 'three')],
      [client.ip, await claim('bbb', 'four')],
    ]);
    const before = wanted;
    const first = later(client);
    await waitFor('a walk is wanted', () => wanted > before);
    await walked();
    expect([await first, await later(other)]).toEqual(['container:bbb', 'container:aaa']);
  });

  test('is looked at again while it calls: somebody else may have come into its namespace', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    claims.set(client.ip, await claim('aaa'));
    const naming = found();
    await walked();
    await naming;
    claims.set(client.ip, 'shared');
    vi.advanceTimersByTime(9_000);
    expect(await found()).toMatchObject({ text: 'container:aaa' });
    expect(wanted).toBe(1);
    vi.advanceTimersByTime(2_000);
    // Nobody waits for that.
    expect(await found()).toMatchObject({ text: 'container:aaa' });
    expect(wanted).toBe(2);
    await walked();
    vi.advanceTimersByTime(2_000);
    const again = found();
    await walked();
    expect(await again).toMatchObject({ text: 'unknown' });
  });

  test('is looked for once, however many walks end meanwhile', async () => {
    claims.set(client.ip, await claim('aaa'));
    const naming = found();
    await Promise.all(Array.from({ length: 20 }, () => walked()));
    await naming;
    expect(reads).toBe(1);
  });
});
