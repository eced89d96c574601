import { describe, expect, test } from 'vitest';
import {
  FallbackPlanner,
  fallbackRules,
  MAX_FALLBACK_RULES,
  MAX_FALLBACK_TARGETS,
} from '../../../../src/capture/rules/fallback.ts';
import type { Ip } from '../../../../src/model/address.ts';
import { parseEndpoint } from '../../../../src/model/address.ts';
import type { InstanceId, Service, ServiceName } from '../../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot } from '../../../../src/model/snapshot.ts';

const here = { node: 'a', zone: 'dc1', otherZones: ['dc2'] };

function service(
  name: string,
  virtual: readonly string[],
  instances: readonly string[],
  more: object = {},
): Service {
  return {
    name: name as ServiceName,
    protocol: 'tcp',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    virtual: virtual as Ip[],
    instances: instances.map((text) => {
      const [address = '', zone = 'dc1', state] = text.split(' ');
      return {
        id: text as InstanceId,
        address: parseEndpoint(address)!,
        zone,
        labels: {},
        weight: 100,
        draining: state === 'draining',
      };
    }),
    ...more,
  };
}

const snapshotOf = (...services: Service[]): Snapshot =>
  applyDelta(emptySnapshot, { base: 0, services, removedServices: [], nodes: [], removedNodes: [] });

function planned(snapshot: Snapshot, where: typeof here = here): FallbackPlanner {
  const planner = new FallbackPlanner(where);
  planner.update(snapshot);
  return planner;
}

describe('entries', () => {
  const targets = (snapshot: Snapshot, where: typeof here = here) =>
    planned(snapshot, where).entries.map(
      ({ virtual, port, targets }) =>
        `${virtual} ${port} → ${targets.map(({ ip, port }) => `${ip} ${port}`).join(', ')}`,
    );

  test('an instance of the nearest zone that is not draining, of the same family', () => {
    const orders = service(
      'orders',
      ['240.0.0.1', 'fd6d::1'],
      [
        '10.2.0.1:80 dc2',
        '10.1.0.1:80 dc1',
        '10.1.0.2:80 dc1 draining',
        '[fd00::9]:80 dc9',
        '[fd00::2]:80 dc2',
      ],
    );
    expect(targets(snapshotOf(orders))).toEqual(['240.0.0.1 80 → 10.1.0.1 80', 'fd6d::1 80 → fd00::2 80']);
  });

  test('every port of the service leads to its instances', () => {
    const orders = service('orders', ['240.0.0.1'], ['10.1.0.1:8080'], { ports: [80, 443] });
    expect(targets(snapshotOf(orders))).toEqual([
      '240.0.0.1 80 → 10.1.0.1 8080',
      '240.0.0.1 443 → 10.1.0.1 8080',
    ]);
  });

  test('nothing for strict services, and for those without a live instance or virtual address', () => {
    expect(
      targets(
        snapshotOf(
          service('strict', ['240.0.0.1'], ['10.1.0.1:80'], { mode: 'strict' }),
          service('gone', ['240.0.0.2'], ['10.1.0.2:80 dc1 draining']),
          service('plain', [], ['10.1.0.3:80']),
          service('other', ['240.0.0.3'], ['[fd00::3]:80']),
        ),
      ),
    ).toEqual([]);
  });

  test('not more than so many targets, and other hosts take others', () => {
    const many = Array.from({ length: 100 }, (_, at) => `10.1.0.${at}:80`);
    const snapshot = snapshotOf(service('orders', ['240.0.0.1'], many));
    const chosen = new Set<string>();
    for (const node of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']) {
      const { entries } = planned(snapshot, { ...here, node });
      expect(entries[0]!.targets).toHaveLength(MAX_FALLBACK_TARGETS);
      for (const { ip } of entries[0]!.targets) chosen.add(ip);
    }
    expect(chosen.size).toBeGreaterThan(3 * MAX_FALLBACK_TARGETS);
  });

  test('many services share the room, then the last ones by name find none', () => {
    const many = manyServices(MAX_FALLBACK_RULES + 3);
    const of = (count: number): FallbackPlanner => planned(snapshotOf(...many.slice(0, count)));
    const rules = ({ entries }: FallbackPlanner) =>
      entries.reduce((sum, { targets }) => sum + targets.length, 0);
    const half = of(MAX_FALLBACK_RULES / 2);
    expect([rules(half), half.left]).toEqual([MAX_FALLBACK_RULES, 0]);
    const more = of(MAX_FALLBACK_RULES / 2 + 1);
    expect([more.entries.length, more.left]).toEqual([MAX_FALLBACK_RULES / 2 + 1, 0]);
    const most = of(MAX_FALLBACK_RULES + 3);
    expect([rules(most), most.left]).toEqual([MAX_FALLBACK_RULES, 3]);
    expect(most.entries[0]!.virtual).toBe('240.1.0.0');
  }, 30_000);
});

const manyServices = (count: number): Service[] =>
  Array.from({ length: count }, (_, at) =>
    service(
      `s${String(at).padStart(5, '0')}`,
      [`240.1.${at >> 8}.${at & 255}`],
      ['10.1.0.1:80', '10.1.0.2:80'],
    ),
  );

const change = (from: Snapshot, services: Service[], removed: readonly string[] = []): Snapshot => {
  const removedServices = removed as ServiceName[];
  return applyDelta(from, { base: from.version, services, removedServices, nodes: [], removedNodes: [] });
};

describe('another snapshot', () => {
  test('what has not changed is the same value, what has is told', () => {
    const planner = new FallbackPlanner(here);
    const first = snapshotOf(service('orders', ['240.0.0.1'], ['10.1.0.1:80', '10.2.0.1:80 dc2']));
    planner.update(first);
    const { entries } = planner;
    // The other zone has one instance more; nobody goes there.
    const more = ['10.1.0.1:80', '10.2.0.1:80 dc2', '10.2.0.2:80 dc2'];
    const second = change(first, [service('orders', ['240.0.0.1'], more)]);
    planner.update(second);
    expect(planner.entries).toBe(entries);
    const third = change(second, [service('orders', ['240.0.0.1'], ['10.1.0.2:80'])]);
    planner.update(third);
    expect(planner.entries.map(({ targets }) => targets[0]!.ip)).toEqual(['10.1.0.2']);
    const strict = change(third, [service('orders', ['240.0.0.1'], ['10.1.0.2:80'], { mode: 'strict' })]);
    planner.update(strict);
    expect(planner.entries).toEqual([]);
    planner.update(third);
    planner.update(change(third, [], ['orders']));
    expect(planner.entries).toEqual([]);
  });

  test('however they came, the entries are those of one that sees the last snapshot only', () => {
    const planner = new FallbackPlanner(here);
    let snapshot: Snapshot = emptySnapshot;
    let random = 1;
    const next = (below: number): number => {
      random = (Math.imul(random, 1_103_515_245) + 12_345) & 0x7fffffff;
      return random % below;
    };
    for (let step = 0; step < 300; step++) {
      const count = step % 50 === 0 ? 80 : 1 + next(3);
      const names = new Set(Array.from({ length: count }, () => `s${next(200)}`));
      const gone = [...names].filter((name) => snapshot.services.has(name as ServiceName) && next(3) === 0);
      const services = [...names]
        .filter((name) => !gone.includes(name))
        .map((name) =>
          service(name, next(5) === 0 ? [] : [`240.0.0.${name.slice(1)}`], [`10.0.0.1:${1 + next(9)}`], {
            mode: next(6) === 0 ? 'strict' : 'permissive',
          }),
        );
      snapshot = change(snapshot, services, gone);
      planner.update(snapshot);
      if (next(2) === 0) expect(planner.entries).toEqual(planned(snapshot).entries);
    }
    expect(planner.entries.length).toBeGreaterThan(50);
  });

  test('beyond the room a change costs nothing, and shortened entries stay the same values', () => {
    const many = manyServices(MAX_FALLBACK_RULES + 2);
    const first = change(emptySnapshot, many);
    const planner = planned(first);
    const { entries } = planner;
    expect(planner.left).toBe(2);
    planner.update(change(first, [service('zz', ['240.9.9.9'], ['10.1.0.1:80'])]));
    expect(planner.entries).toBe(entries);
    expect(planner.left).toBe(3);
  }, 30_000);
});

describe('rules', () => {
  const entry = (virtual: string, port: number, ...targets: string[]) => ({
    virtual: virtual as Ip,
    port,
    targets: targets.map((text) => parseEndpoint(text)!),
  });

  test('spread evenly; whatever is not for a virtual address leaves at once', () => {
    const entries = [
      entry('240.0.0.1', 80, '10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:8080'),
      entry('240.0.0.3', 81, '10.0.0.4:81'),
      entry('fd6d::1', 80, '[fd00::1]:80'),
    ];
    const ipv4 = fallbackRules(entries, 'ipv4', ['docker0'])!;
    expect(ipv4.table).toBe('nat');
    expect(Object.fromEntries(ipv4.chains)).toEqual({
      MESH_VIRT: [
        '! -d 240.0.0.0/30 -j RETURN',
        '-d 240.0.0.1/32 -p tcp -m tcp --dport 80 -m statistic --mode nth --every 3 --packet 0 -j DNAT --to-destination 10.0.0.1:80',
        '-d 240.0.0.1/32 -p tcp -m tcp --dport 80 -m statistic --mode nth --every 2 --packet 0 -j DNAT --to-destination 10.0.0.2:80',
        '-d 240.0.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.3:8080',
        '-d 240.0.0.3/32 -p tcp -m tcp --dport 81 -j DNAT --to-destination 10.0.0.4:81',
      ],
      MESH_VIRT_SRC: ['! -o lo -m conntrack --ctstate DNAT --ctorigdst 240.0.0.0/30 -j MASQUERADE'],
      MESH_VIRT_PRE: ['-i docker0 -j MESH_VIRT'],
    });
    expect(ipv4.jumps).toEqual([
      ['OUTPUT', 'MESH_VIRT'],
      ['POSTROUTING', 'MESH_VIRT_SRC'],
      ['PREROUTING', 'MESH_VIRT_PRE'],
    ]);
    const ipv6 = fallbackRules(entries, 'ipv6', [])!;
    expect(ipv6.chains.get('MESH_VIRT')).toEqual([
      '! -d fd6d::1/128 -j RETURN',
      '-d fd6d::1/128 -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00::1]:80',
    ]);
    expect(fallbackRules([], 'ipv4', [])).toBeUndefined();
  });

  test.each(['ipv4', 'ipv6'] as const)(
    'thousands: a connection meets few rules, and the right one (%s)',
    (family) => {
      const address = (at: number) =>
        family === 'ipv4'
          ? `240.${(at * 7) & 255}.${at >> 8}.${at & 255}`
          : `fd6d:6573:6800:${((at * 31) & 65_535).toString(16)}::${at.toString(16)}`;
      const target = family === 'ipv4' ? '10.0.0.1' : '[fd00::1]';
      const entries = Array.from({ length: 5000 }, (_, at) =>
        entry(address(at + 1), 80, `${target}:${at + 1}`),
      );
      const { chains } = fallbackRules(entries, family, [])!;
      for (const name of chains.keys()) expect(name.length).toBeLessThanOrEqual(28);
      /** Walks the chains as the kernel does; the target, and how many rules were met. */
      const walk = (ip: string): { to: string | undefined; met: number } => {
        let met = 0;
        const visit = (chain: string): string | undefined => {
          for (const rule of chains.get(chain)!) {
            met++;
            const [, negated, network = ''] = /^(! )?-d (\S+)/.exec(rule)!;
            if (within(ip, network) === (negated === '! ')) continue;
            if (rule.endsWith('-j RETURN')) return undefined;
            const to = /--to-destination (\S+)/.exec(rule)?.[1] ?? visit(/-j (\S+)/.exec(rule)![1]!);
            if (to !== undefined) return to;
          }
          return undefined;
        };
        return { to: visit('MESH_VIRT'), met };
      };
      for (let at = 0; at < 5000; at += 37) {
        const { to, met } = walk(address(at + 1));
        expect(to).toBe(`${target}:${at + 1}`);
        expect(met).toBeLessThan(150);
      }
      expect(walk(family === 'ipv4' ? '10.0.0.1' : 'fd00::1')).toEqual({ to: undefined, met: 1 });
    },
  );
});

function within(ip: string, network: string): boolean {
  const [base = '', width = '0'] = network.split('/');
  return bits(ip).startsWith(bits(base).slice(0, Number(width)));
}

function bits(ip: string): string {
  if (!ip.includes(':'))
    return ip
      .split('.')
      .map((part) => Number(part).toString(2).padStart(8, '0'))
      .join('');
  const [head = '', tail] = ip.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const groups = [...left, ...new Array<string>(8 - left.length - right.length).fill('0'), ...right];
  return groups.map((group) => Number.parseInt(group, 16).toString(2).padStart(16, '0')).join('');
}
