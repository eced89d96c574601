import { describe, expect, it } from 'vitest';
import { isDestination, parseAllowList } from '../../../src/capture/allow-list.ts';
import type { Observation } from '../../../src/capture/observations.ts';
import { coverage, proposeAllowList } from '../../../src/capture/proposal.ts';
import type { EndpointKey } from '../../../src/model/address.ts';

const seen = (destination: string, count = 1, caller = 'user:app'): Observation => ({
  caller,
  destination: destination as EndpointKey,
  count,
  firstSeen: 1,
  lastSeen: 2,
});
const keys = (...texts: string[]) => texts as EndpointKey[];

describe('proposeAllowList', () => {
  it('lists each destination once, the busiest first, with who calls', () => {
    const text = proposeAllowList(
      [seen('10.0.0.5:5432', 2), seen('10.0.0.5:5432', 5, 'unit:shop.service'), seen('[fd00::1]:443', 9)],
      [],
    );
    expect(text).toBe(
      '# 9 connections: user:app (9)\n[fd00::1]:443\n' +
        '# 7 connections: unit:shop.service (5), user:app (2)\n10.0.0.5:5432\n',
    );
    expect(parseAllowList(text).problems).toEqual([]);
    expect(proposeAllowList([], [])).toBe('');
  });

  it('groups a network with one port and an address with many, but never over a service', () => {
    const replicas = ['10.1.2.3:9042', '10.1.2.4:9042', '10.1.2.250:9042'].map((at) => seen(at));
    expect(proposeAllowList(replicas, [])).toMatch(/\n10\.1\.2\.0\/24:9042\n$/);
    expect(proposeAllowList(replicas, keys('10.1.2.9:9043', '10.1.3.9:9042'))).toMatch(
      /10\.1\.2\.0\/24:9042/,
    );
    expect(proposeAllowList(replicas, keys('10.1.2.9:9042'))).toMatch(
      /10\.1\.2\.3:9042\n.*\n10\.1\.2\.4:9042/,
    );
    const six = ['[fd00:0:0:1::3]:80', '[fd00:0:0:1::4]:80', '[fd00:0:0:1::5]:80'].map((at) => seen(at));
    expect(proposeAllowList(six, [])).toMatch(/\n\[fd00:0:0:1::\/64\]:80\n$/);
    const ports = Array.from({ length: 8 }, (_, i) => seen(`10.1.2.3:${7000 + i}`));
    expect(proposeAllowList(ports, [])).toMatch(/\n10\.1\.2\.3\n$/);
    expect(proposeAllowList(ports, keys('10.1.2.3:80')).match(/\n10\.1\.2\.3:70/g)).toHaveLength(8);
  });

  it('is no longer than a list may be, and says so', () => {
    const many = Array.from({ length: 8200 }, (_, i) => seen(`10.${i >> 8}.${i & 255}.1:80`));
    const text = proposeAllowList(many, []);
    expect(text.endsWith('\n# 8 more are left out: a list has at most 8192 entries\n')).toBe(true);
    expect(parseAllowList(text)).toMatchObject({ problems: [] });
  });

  it('names few callers of many', () => {
    const text = proposeAllowList(
      Array.from({ length: 6 }, (_, i) => seen('10.0.0.1:1', 6 - i, `user:u${i}`)),
      [],
    );
    expect(text).toMatch(/^# 21 connections: user:u0 \(6\), .*user:u3 \(3\), and 2 more\n/);
  });
});

describe('coverage', () => {
  it('knows which destinations an allow-list covers', () => {
    const { entries } = parseAllowList('10.0.0.0/8:5432\ntcp/22\nfd00::/16\n192.0.2.1');
    const covers = coverage(entries.filter(isDestination));
    const covered = [
      '10.9.9.9:5432',
      '192.0.2.1:1',
      '203.0.113.1:22',
      '[2001:db8::1]:22',
      '[fd00::1]:80',
    ] as EndpointKey[];
    for (const key of covered) expect(covers(key), key).toBe(true);
    for (const key of keys('10.9.9.9:5433', '192.0.2.2:1', '[fd01::1]:80'))
      expect(covers(key), key).toBe(false);
  });
});
