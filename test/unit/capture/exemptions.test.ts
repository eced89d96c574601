import { describe, expect, it } from 'vitest';
import { parseAllowList } from '../../../src/capture/allow-list.ts';
import { resolveExemptions, type Surroundings, sameExemptions } from '../../../src/capture/exemptions.ts';
import type { Ip } from '../../../src/model/address.ts';

const nobody: Surroundings = {
  addresses: () => [],
  hostProblem: () => undefined,
  uidOf: () => undefined,
  cgroupOf: () => undefined,
  hasUnits: true,
};
const everybody = { users: [], units: [] };
const list = (...lines: string[]) => {
  const { entries, problems } = parseAllowList(lines.join('\n'));
  expect(problems).toEqual([]);
  return entries;
};

describe('resolveExemptions', () => {
  it('turns host names into addresses of both families, users into numbers, units into control groups', () => {
    const found = resolveExemptions(
      list('10.0.0.0/8', 'db.example.com:5432', 'user:backup', 'user:7', 'unit:a.service'),
      everybody,
      {
        ...nobody,
        addresses: (host) => (host === 'db.example.com' ? (['10.1.0.1', 'fd00::1'] as Ip[]) : []),
        uidOf: (user) => (user === 'backup' ? 34 : undefined),
        cgroupOf: (unit) => ({ path: `system.slice/${unit}`, inode: 77 }),
      },
    );
    const ports = { first: 5432, last: 5432 };
    expect(found).toEqual({
      exempt: [
        { network: { family: 'ipv4', address: '10.0.0.0', prefix: 8 } },
        { network: { family: 'ipv4', address: '10.1.0.1', prefix: 32 }, ports },
        { network: { family: 'ipv6', address: 'fd00::1', prefix: 128 }, ports },
        { uid: 34 },
        { uid: 7 },
        { cgroup: 'system.slice/a.service', inode: 77 },
      ],
      only: undefined,
      problems: [],
      waiting: [],
    });
  });

  it('lets nothing that is not found block the rest', () => {
    const found = resolveExemptions(
      list('gone.example.com', 'user:nobody-here', 'unit:later.service', 'tcp/25'),
      everybody,
      { ...nobody, hostProblem: () => 'ENOTFOUND' },
    );
    expect(found.exempt).toEqual([{ ports: { first: 25, last: 25 } }]);
    expect(found.waiting).toEqual(['later.service']);
    expect(found.problems).toEqual([
      'gone.example.com: ENOTFOUND',
      expect.stringMatching(/^user:nobody-here: no such user/),
    ]);
    expect(
      resolveExemptions(list('unit:a.service'), everybody, { ...nobody, hasUnits: false }).problems[0],
    ).toMatch(/no cgroup v2/);
  });

  it('restricts to nobody, not to everybody, while the callers of capture.only do not exist', () => {
    const only = { users: ['later'], units: ['later.service'] };
    expect(resolveExemptions([], everybody, nobody).only).toBeUndefined();
    expect(resolveExemptions([], only, nobody).only).toEqual({ uids: [], cgroups: [] });
    expect(
      resolveExemptions([], only, { ...nobody, uidOf: () => 5, cgroupOf: () => ({ path: 'x', inode: 1 }) })
        .only,
    ).toEqual({ uids: [5], cgroups: [{ cgroup: 'x', inode: 1 }] });
  });

  it('calls a unit with a new control group a change', () => {
    const at = (inode: number) =>
      resolveExemptions(list('unit:a.service'), everybody, {
        ...nobody,
        cgroupOf: () => ({ path: 'a', inode }),
      });
    expect(sameExemptions(at(1), at(1))).toBe(true);
    expect(sameExemptions(at(1), at(2))).toBe(false);
  });

  it('is bounded', () => {
    const many = Array.from({ length: 64 }, (_, i) => `10.0.0.${i}`) as Ip[];
    const hosts = Array.from({ length: 300 }, (_, i) => `h${i}.example.com`);
    const found = resolveExemptions(list(...hosts), everybody, { ...nobody, addresses: () => many });
    expect(found.exempt).toHaveLength(16_384);
    expect(found.problems).toEqual([expect.stringMatching(/^2816 addresses are left out/)]);
  });
});
