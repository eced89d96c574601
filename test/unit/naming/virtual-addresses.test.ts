import { describe, expect, it } from 'vitest';
import type { Ip } from '../../../src/model/address.ts';
import { selfTestAddress } from '../../../src/model/self-test.ts';
import type { ServiceName } from '../../../src/model/service.ts';
import { type AddressRange, addressRange, inRange } from '../../../src/naming/address-bytes.ts';
import {
  parseVirtualRecord,
  VirtualAddresses,
  type VirtualRecord,
} from '../../../src/naming/virtual-addresses.ts';

const IPV4 = addressRange('240.0.0.0/4')!;
const IPV6 = addressRange('fd6d:6573:6800::/48')!;
const HOUR = 3_600_000;

interface World {
  readonly addresses: VirtualAddresses;
  now: number;
  changes: number;
  exhausted: number;
  of(name: string): readonly Ip[];
}

function world(ipv4: AddressRange | 'off' = IPV4, ipv6: AddressRange | 'off' = IPV6): World {
  const made: World = {
    now: 1_000_000 * HOUR,
    changes: 0,
    exhausted: 0,
    of: (name: string) => made.addresses.of(name as ServiceName),
    addresses: new VirtualAddresses({
      ipv4: ipv4 === 'off' ? undefined : ipv4,
      ipv6: ipv6 === 'off' ? undefined : ipv6,
      reuseAfter: 168 * HOUR,
      changed: () => made.changes++,
      exhausted: () => made.exhausted++,
      now: () => made.now,
    }),
  };
  return made;
}

const release = (from: World, name: string) => from.addresses.release(name as ServiceName);

/** Names that meet at their first place in a range of 254 addresses. */
function colliding(range: AddressRange): readonly [string, string] {
  const seen = new Map<string, string>();
  for (let i = 0; ; i++) {
    const ip = world(range, 'off').of(`s${i}`)[0]!;
    const other = seen.get(ip);
    if (other !== undefined) return [other, `s${i}`];
    seen.set(ip, `s${i}`);
  }
}

describe('an address', () => {
  it('follows from the name alone, so that hosts agree', () => {
    // SHA-256("orders") begins 1c16 8adb …: 240.0.0.0/4 keeps the lower 28 bits of it.
    expect(world().of('orders')).toEqual(['252.22.138.219', 'fd6d:6573:6800:8e4:2f93:3145:29f1:fa9c']);
    const [one, other] = [world(), world()];
    for (let i = 0; i < 50; i++) one.of(`before-${i}`);
    expect(other.of('payments.shop')).toEqual(one.of('payments.shop'));
  });

  it('is within its range, and looks like no network, broadcast or the reserved one', () => {
    const ranges = [addressRange('10.7.3.0/24')!, addressRange('fd00:1:2:3:4:5::/96')!] as const;
    const { of } = world(...ranges);
    for (let i = 0; i < 200; i++) {
      const [ipv4, ipv6] = of(`service-${i}`);
      expect(inRange(ranges[0], ipv4!) && inRange(ranges[1], ipv6!)).toBe(true);
      expect(ipv4).not.toMatch(/\.(0|1|255)$/);
    }
    // 10.7.3.1 is the self-test's.
    expect(selfTestAddress('10.7.3.0/24')).toBe('10.7.3.1');
  });

  it('goes elsewhere where two names meet, and stays where it was given', () => {
    const range = addressRange('10.7.3.0/24')!;
    const [one, other] = colliding(range);
    const hosts = world(range, 'off');
    const first = hosts.of(one);
    const second = hosts.of(other);
    expect(second).not.toEqual(first);
    expect(hosts.of(one)).toBe(first);
    expect(hosts.of(other)).toBe(second);
  });

  it('is of no family that this host does not use', () => {
    expect(world(IPV4, 'off').of('orders')).toEqual(['252.22.138.219']);
    const off = new VirtualAddresses({
      ...{ ipv4: undefined, ipv6: undefined, reuseAfter: HOUR, changed: () => {}, exhausted: () => {} },
    });
    expect(off.of('orders' as ServiceName)).toEqual([]);
    expect(off.size).toBe(0);
  });

  it('is no more when nine tenths of the range are given, and that is told once', () => {
    const crowded = world(addressRange('10.7.3.0/24')!, 'off');
    const given = Array.from({ length: 260 }, (_, i) => crowded.of(`s${i}`)).flat();
    expect(given).toHaveLength(228);
    expect(new Set(given).size).toBe(228);
    expect(crowded.exhausted).toBe(1);
  });
});

describe('a service that is gone', () => {
  it('gets its old address when it returns, also after a restart', () => {
    const range = addressRange('10.7.3.0/24')!;
    const [one, other] = colliding(range);
    const before = world(range, 'off');
    before.of(one);
    const moved = before.of(other);
    release(before, one);
    const after = world(range, 'off');
    after.addresses.load([...before.addresses.records()]);
    // The first place of `other` is not free, although nobody speaks of `one`.
    expect(after.of(other)).toEqual(moved);
    expect(after.of(one)).toEqual(before.of(one));
  });

  it('keeps it from others for as long as configured, and no longer', () => {
    const range = addressRange('10.7.3.0/24')!;
    const [one, other] = colliding(range);
    const hosts = world(range, 'off');
    const wanted = hosts.of(one);
    release(hosts, one);
    hosts.now += 167 * HOUR;
    hosts.addresses.sweep();
    expect(hosts.of(other)).not.toEqual(wanted);
    release(hosts, other);
    hosts.now += 169 * HOUR;
    hosts.addresses.sweep();
    expect(hosts.addresses.size).toBe(0);
    expect(hosts.of(other)).toEqual(wanted);
  });

  it('is one that nobody has spoken of since the start', () => {
    const before = world();
    before.of('orders');
    const after = world();
    after.addresses.load(before.addresses.records());
    after.now += 169 * HOUR;
    after.of('orders');
    after.addresses.sweep();
    expect(after.addresses.size).toBe(1);
    after.addresses.releaseOthers(new Set());
    after.now += 169 * HOUR;
    after.addresses.sweep();
    expect(after.addresses.size).toBe(0);
  });
});

describe('what was written down', () => {
  it('is told to be written when something changed, and only then', () => {
    const hosts = world();
    hosts.of('orders');
    hosts.of('orders');
    expect(hosts.changes).toBe(1);
    release(hosts, 'orders');
    release(hosts, 'orders');
    expect(hosts.changes).toBe(2);
    hosts.of('orders');
    expect(hosts.changes).toBe(3);
  });

  it('counts within the ranges of now, each address once, and not for ever', () => {
    const hosts = world();
    const at = (name: string, addresses: readonly string[], goneAt?: number) =>
      ({ name, addresses, goneAt }) as VirtualRecord;
    hosts.addresses.load([
      at('orders', ['241.0.0.9', 'fd00::1']),
      at('users', ['241.0.0.9']),
      at('old', ['241.0.0.10'], hosts.now - 169 * HOUR),
      at('future', ['241.0.0.11'], hosts.now + 1000 * HOUR),
    ]);
    // The family that it had outside the range follows from the name again.
    expect(hosts.of('orders')).toEqual(['241.0.0.9', 'fd6d:6573:6800:8e4:2f93:3145:29f1:fa9c']);
    expect(hosts.of('users')).toEqual(world().of('users'));
    hosts.now += 169 * HOUR;
    hosts.addresses.sweep();
    expect([...hosts.addresses.records()].map(({ name }) => name)).toEqual(['orders', 'users']);
  });

  it('is read with distrust', () => {
    const good = { name: 'orders', addresses: ['240.0.0.2', 'fd00::1'], goneAt: 5 };
    expect(parseVirtualRecord(good)).toEqual(good);
    expect(parseVirtualRecord({ ...good, goneAt: null })).toEqual({ ...good, goneAt: undefined });
    const bad = [
      ...[undefined, null, 7, 'x', [], { ...good, name: 'Orders' }, { ...good, name: 3 }],
      ...[
        { ...good, addresses: 'x' },
        { ...good, addresses: [1] },
        { ...good, addresses: ['x'] },
      ],
      ...[
        { ...good, addresses: ['240.0.0.2', '240.0.0.3'] },
        { ...good, goneAt: 'x' },
      ],
      { ...good, addresses: ['240.0.0.2', 'fd00::1', 'fd00::2'] },
    ];
    for (const value of bad) expect(parseVirtualRecord(value)).toBeUndefined();
  });
});

it('gives 50,000 services their addresses in one go', { timeout: 60_000 }, () => {
  const many = world();
  const given = new Set<Ip>();
  for (let i = 0; i < 50_000; i++) for (const ip of many.of(`service-${i}.shop`)) given.add(ip);
  expect(given.size).toBe(100_000);
});
