import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { CgroupName } from '../../../src/caller/cgroup-name.ts';
import type { CgroupWalks } from '../../../src/caller/cgroup-walks.ts';
import { type Identity, Naming } from '../../../src/caller/identity.ts';
import { LocalCallers } from '../../../src/caller/local-callers.ts';
import type { Users } from '../../../src/caller/users.ts';
import type { SocketOwner } from '../../../src/io/netlink-sock-diag.ts';
import type { Endpoint, Ip } from '../../../src/model/address.ts';

const TIMEOUT_MS = 100;
const from: Endpoint = { ip: '127.0.0.1' as Ip, port: 1 };

let owner: SocketOwner | undefined;
let names: Map<number, CgroupName>;
let wanted: number;
let callers: LocalCallers;

beforeEach(() => {
  vi.useFakeTimers();
  owner = undefined;
  names = new Map();
  wanted = 0;
  const walks = {
    get tree() {
      return { names, containers: new Map() };
    },
    want: () => wanted++,
  } as unknown as CgroupWalks;
  const users = { name: (uid: number) => (uid === 0 ? 'root' : String(uid)) } as Users;
  callers = new LocalCallers({ owner: () => owner } as never, users, walks, () => TIMEOUT_MS);
});
afterEach(() => {
  vi.useRealTimers();
});

const find = () => callers.find(from, from);
const naming = (): { naming: Naming; named: Identity[] } => {
  const found = find();
  if (!(found instanceof Naming)) throw new Error(`${found.text} is known already`);
  const named: Identity[] = [];
  found.wait((identity) => named.push(identity));
  return { naming: found, named };
};

test('a socket that nobody has is unknown', () => {
  expect(find()).toMatchObject({ text: 'unknown', caller: {} });
  expect(wanted).toBe(0);
});

test('a known cgroup is named at once, by one object for all connections', () => {
  names.set(7, { unit: 'orders.service' });
  owner = { uid: 0, cgroup: 7 };
  const first = find();
  expect(first).toEqual({ text: 'unit:orders.service', caller: { unit: 'orders.service', user: 'root' } });
  expect(find()).toBe(first);
  owner = { uid: 5, cgroup: 7 };
  expect(find()).toEqual({ text: 'unit:orders.service', caller: { unit: 'orders.service', user: '5' } });
  callers.forget();
  expect(find()).not.toBe(first);
});

test('without a cgroup it is the user', () => {
  owner = { uid: 12, cgroup: 0 };
  expect(find()).toEqual({ text: 'user:12', caller: { user: '12' } });
  expect(wanted).toBe(0);
});

describe('a cgroup seen for the first time', () => {
  beforeEach(() => {
    owner = { uid: 5, cgroup: 9 };
  });

  test('is the user until a walk has seen it; all who wait are told together', () => {
    const one = naming();
    const two = naming();
    expect(two.naming).toBe(one.naming);
    expect(one.naming.meanwhile.text).toBe('user:5');
    expect(wanted).toBe(1);
    names.set(9, { unit: 'orders.service' });
    callers.walked(performance.now());
    expect([...one.named, ...two.named].map(({ text }) => text)).toEqual(
      Array(2).fill('unit:orders.service'),
    );
    expect(find()).toMatchObject({ text: 'unit:orders.service' });
  });

  test('stays the user when the walk comes too late', () => {
    const { named } = naming();
    vi.advanceTimersByTime(TIMEOUT_MS);
    expect(named.map(({ text }) => text)).toEqual(['user:5']);
    names.set(9, { unit: 'orders.service' });
    expect(find()).toMatchObject({ text: 'unit:orders.service' });
  });

  test('that a walk does not find is not looked for again for a while', () => {
    const { named } = naming();
    callers.walked(performance.now() + 1);
    expect(named.map(({ text }) => text)).toEqual(['user:5']);
    expect(find()).toMatchObject({ text: 'user:5' });
    expect(wanted).toBe(1);
    vi.advanceTimersByTime(1_001);
    naming();
    expect(wanted).toBe(2);
  });

  test('waits for a walk that began after it was asked for', () => {
    const { named } = naming();
    callers.walked(performance.now() - 1);
    expect([named, wanted]).toEqual([[], 2]);
  });

  test('is forgotten with its directory', () => {
    names.set(9, { unit: 'orders.service' });
    find();
    names = new Map();
    callers.walked(performance.now());
    expect(find()).toBeInstanceOf(Naming);
  });

  test('is one of a bounded number of things that are looked for', () => {
    for (let cgroup = 100; cgroup < 164; cgroup++) {
      owner = { uid: 5, cgroup };
      naming();
    }
    owner = { uid: 5, cgroup: 400 };
    expect(find()).toMatchObject({ text: 'user:5' });
  });

  test('is given up when the worker ends', () => {
    const { named } = naming();
    callers.close();
    expect(named.map(({ text }) => text)).toEqual(['user:5']);
    expect(vi.getTimerCount()).toBe(0);
  });
});
