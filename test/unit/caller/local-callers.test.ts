import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { CgroupName } from '../../../src/caller/cgroup-name.ts';
import type { CgroupWalks } from '../../../src/caller/cgroup-walks.ts';
import { type Identity, Naming } from '../../../src/caller/identity.ts';
import { LocalCallers } from '../../../src/caller/local-callers.ts';
import { SourcePorts } from '../../../src/caller/source-ports.ts';
import type { Users } from '../../../src/caller/users.ts';
import type { SockDiag, SocketOwner } from '../../../src/io/netlink-sock-diag.ts';
import type { Endpoint, Ip } from '../../../src/model/address.ts';

const TIMEOUT_MS = 100;
const from: Endpoint = { ip: '127.0.0.1' as Ip, port: 1 };

let owner: SocketOwner | 'nobody' | 'absent';
/** What is found under another port. */
let real: { readonly port: number; readonly owner: SocketOwner } | undefined;
let sources: SourcePorts;
let names: Map<number, CgroupName>;
let wanted: number;
let callers: LocalCallers;

beforeEach(() => {
  vi.useFakeTimers();
  owner = 'nobody';
  real = undefined;
  sources = new SourcePorts();
  names = new Map();
  wanted = 0;
  const walks = {
    get tree() {
      return { names, containers: new Map() };
    },
    want: () => wanted++,
  } as unknown as CgroupWalks;
  const users = { name: (uid: number) => (uid === 0 ? 'root' : String(uid)) } as Users;
  const sockets = {
    owner: (local: Endpoint) => (real !== undefined && local.port === real.port ? real.owner : owner),
  } as unknown as SockDiag;
  callers = new LocalCallers(sockets, users, walks, sources, () => TIMEOUT_MS);
});
afterEach(() => {
  vi.useRealTimers();
});

const find = () => callers.find(from, from, from);
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

describe('a connection that has another port here than its caller', () => {
  const question = (): { answer: (port: number) => void; asked: number } => {
    const state = { answer: (_port: number): void => {}, asked: 0 };
    sources.ask = (id, connections) => {
      state.asked += connections.length;
      state.answer = (port) =>
        sources.answered(
          id,
          connections.map(() => port),
        );
    };
    return state;
  };
  beforeEach(() => {
    owner = 'absent';
    names.set(7, { unit: 'orders.service' });
    real = { port: 9, owner: { uid: 5, cgroup: 7 } };
  });

  test('is named once the supervisor has said which', () => {
    const asked = question();
    const { naming: found, named } = naming();
    expect(found.meanwhile.text).toBe('unknown');
    vi.runAllTicks();
    vi.advanceTimersByTime(0);
    expect(asked.asked).toBe(1);
    asked.answer(9);
    expect(named.map(({ text }) => text)).toEqual(['unit:orders.service']);
  });

  test('waits for the name of a cgroup, too', () => {
    const asked = question();
    names.clear();
    const { named } = naming();
    vi.advanceTimersByTime(0);
    asked.answer(9);
    expect(named).toEqual([]);
    names.set(7, { unit: 'orders.service' });
    callers.walked(performance.now());
    expect(named.map(({ text }) => text)).toEqual(['unit:orders.service']);
  });

  test.each([
    ['it has no other', 1],
    ['the kernel does not know it', 0],
    ['nobody is found there either', 8],
  ])('is unknown when %s', (_, port) => {
    const asked = question();
    const { named } = naming();
    vi.advanceTimersByTime(0);
    asked.answer(port);
    expect(named.map(({ text }) => text)).toEqual(['unknown']);
  });

  test('is unknown when nobody can be asked, or nobody answers', () => {
    expect(find()).toMatchObject({ text: 'unknown' });
    question();
    const { named } = naming();
    vi.advanceTimersByTime(TIMEOUT_MS);
    expect(named.map(({ text }) => text)).toEqual(['unknown']);
  });

  test('a caller that has closed is not asked for', () => {
    const asked = question();
    owner = 'nobody';
    expect(find()).toMatchObject({ text: 'unknown' });
    vi.advanceTimersByTime(0);
    expect(asked.asked).toBe(0);
  });
});
