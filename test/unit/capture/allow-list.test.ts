import { describe, expect, it } from 'vitest';
import {
  describeProblem,
  formatAllowEntry,
  MAX_ALLOW_ENTRIES,
  parseAllowList,
  parseProtected,
} from '../../../src/capture/allow-list.ts';

describe('parseAllowList', () => {
  it.each([
    ['10.0.0.1', '10.0.0.1'],
    ['10.0.0.1/32', '10.0.0.1'],
    ['10.0.0.0/8', '10.0.0.0/8'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['::/0', '::/0'],
    ['FD00:0::1', 'fd00::1'],
    ['fd00::/8', 'fd00::/8'],
    ['::ffff:10.0.0.1', '10.0.0.1'],
    ['tcp/22', 'tcp/22'],
    ['TCP/6000-6100', 'tcp/6000-6100'],
    ['10.0.0.1:5432', '10.0.0.1:5432'],
    ['10.0.0.0/8:8000-9000', '10.0.0.0/8:8000-9000'],
    ['[fd00::1]:443', '[fd00::1]:443'],
    ['[fd00::1]', 'fd00::1'],
    ['[fd00::/8]:443-445', '[fd00::/8]:443-445'],
    ['DB.example.com', 'db.example.com'],
    ['db.example.com.', 'db.example.com'],
    ['db_1.example.com:5432', 'db_1.example.com:5432'],
    ['tcp.example:8000-9000', 'tcp.example:8000-9000'],
    ['user:backup', 'user:backup'],
    ['User:0', 'user:0'],
    ['user:01003', 'user:1003'],
    ['unit:backup.service', 'unit:backup.service'],
    ['unit:session-3.scope', 'unit:session-3.scope'],
    ['unit:system-getty.slice', 'unit:system-getty.slice'],
    ['unit:getty@tty1.service', 'unit:getty@tty1.service'],
    ['unit:dev-disk\\x2dby.service', 'unit:dev-disk\\x2dby.service'],
  ])('reads %s', (text, canonical) => {
    const { entries, problems } = parseAllowList(`  ${text}\t# why\r\n`);
    expect(problems).toEqual([]);
    expect(entries.map(formatAllowEntry)).toEqual([canonical]);
  });

  it.each([
    ['ssh', /10\.0\.0\.1, 10\.0\.0\.0\/8.*db\.example\.com, user:backup or unit:backup\.service/],
    ['*.example.com', /without wildcard/],
    ['*', /without wildcard/],
    ['db..example.com', /10\.0\.0\.1/],
    ['-a.example.com', /10\.0\.0\.1/],
    ['db.example.com:http', /a port or a range/],
    ['db.example.com:1:2', /10\.0\.0\.1/],
    ['dö.example.com', /10\.0\.0\.1/],
    ['http://db.example.com', /10\.0\.0\.1/],
    ['user:', /a user name or number/],
    ['user:a b', /a user name or number/],
    ['user:4294967295', /at most 4294967294/],
    ['unit:backup', /with its suffix/],
    ['unit:.service', /with its suffix/],
    ['unit:a/b.service', /with its suffix/],
    ['unit:../x.service', /with its suffix/],
    ['unit:-.slice', /the root slice is everything/],
    ['unit:my-job@.service', /my-job@1\.service\), or .*system-my\\x2djob\.slice/],
    ['group:staff', /10\.0\.0\.1/],
    ['10.1', /10\.0\.0\.1/],
    ['0x7f000001', /10\.0\.0\.1/],
    ['10.0.0.1 10.0.0.2', /10\.0\.0\.1/],
    ['10.0.0.5/8', /10\.0\.0\.0\/8 \(or the single address 10\.0\.0\.5\)/],
    ['10.0.0.0/33', /at most 32/],
    ['fd00::/129', /at most 128/],
    ['10.0.0.0/', /at most 32/],
    ['10.0.0.0/8/8', /10\.0\.0\.1/],
    ['::ffff:10.0.0.0/104', /IPv4 notation/],
    ['fe80::1%eth0', /10\.0\.0\.1/],
    ['tcp/0', /between 1 and 65535/],
    ['tcp/65536', /between 1 and 65535/],
    ['tcp/99999-3', /between 1 and 65535/],
    ['tcp/90-80', /begins with its lower port/],
    ['tcp/', /a port or a range/],
    ['udp/53', /10\.0\.0\.1/],
    ['10.0.0.1:', /a port or a range/],
    ['10.0.0.1:http', /a port or a range/],
    ['[10.0.0.1]:80', /10\.0\.0\.1/],
    ['[fd00::1]:', /a port or a range/],
    ['[fd00::1', /10\.0\.0\.1/],
  ])('refuses %s', (text, expected) => {
    const { entries, problems } = parseAllowList(`# list\n\n  ${text}\n`);
    expect(entries).toEqual([]);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatchObject({ line: 3, column: 3, found: text.replace(/[^\x20-\x7e]/g, '?') });
    expect(problems[0]!.expected).toMatch(expected);
  });

  it('reports all bad lines, quotes safely, and drops duplicates', () => {
    const { entries, problems } = parseAllowList('a\n10.0.0.1\n\x1b[31mred\n10.0.0.1/32\nb');
    expect(problems.map((problem) => problem.line)).toEqual([1, 3, 5]);
    expect(describeProblem('/etc/x', problems[1]!)).toMatch(/^\/etc\/x:3:1: found "\?\[31mred", expected 10/);
    expect(entries).toHaveLength(1);
  });

  it('is bounded in entries and in problems', () => {
    const many = Array.from(
      { length: MAX_ALLOW_ENTRIES + 5 },
      (_, i) => `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`,
    );
    const full = parseAllowList(many.join('\n'));
    expect(full.entries).toHaveLength(MAX_ALLOW_ENTRIES);
    expect(full.problems).toMatchObject([
      { line: MAX_ALLOW_ENTRIES + 1, expected: `at most ${MAX_ALLOW_ENTRIES} entries` },
    ]);
    expect(parseAllowList('x\n'.repeat(5000)).problems).toHaveLength(100);
  });
});

describe('parseProtected', () => {
  it('reads entries of the configuration and names a bad one', () => {
    expect(parseProtected(['tcp/22', '169.254.169.254']).map(formatAllowEntry)).toEqual([
      'tcp/22',
      '169.254.169.254',
    ]);
    expect(() => parseProtected(['tcp/22', 'ssh'])).toThrow(/capture\.protect: found "ssh", expected/);
    for (const lookedUp of ['user:root', 'unit:a.service', 'db.example.com'])
      expect(() => parseProtected([lookedUp])).toThrow(/expected 10\.0\.0\.1.* or \[fd00::1\]:443$/);
  });
});
