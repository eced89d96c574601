import { describe, expect, it } from 'vitest';
import { isDestination, parseAllowList } from '../../../src/capture/allow-list.ts';
import { type LiveTables, parseTables } from '../../../src/capture/live-table.ts';
import type { Family } from '../../../src/capture/names.ts';
import { renderAll } from '../../../src/capture/rendered.ts';
import type { PlannedState } from '../../../src/capture/rules/fragment.ts';
import { type RuleInput, ruleBase } from '../../../src/capture/rules/input.ts';
import { planInert, planNothing, planRules } from '../../../src/capture/rules/plan.ts';
import { renderRules } from '../../../src/capture/rules/render.ts';
import { captureConfig, setsOf, wantedOf } from '../../support/wanted.ts';

function input(capture: object = {}, list = '', over: Partial<RuleInput> = {}): RuleInput {
  const { sets: _sets, ...said } = wantedOf([], parseAllowList(list).entries.filter(isDestination));
  const names = { ipv4: '240.0.0.0/4', ipv6: 'fd6d:6573:6800::/48' };
  return { ...ruleBase(captureConfig(capture, names), 990, [15008, 15090]), ...said, backstop: [], ...over };
}
const render = (rules: RuleInput, family: Family = 'ipv4', state: PlannedState = 'applied'): string =>
  renderRules(planRules(rules, family, state));
/** One table of a rendered text. */
const table = (text: string, name: string): string =>
  new RegExp(`^\\*${name}\n[^*]*COMMIT\n`, 'm').exec(text)?.[0] ?? '';
/** The rules of one chain. */
const chain = (text: string, name: string): string[] =>
  [...text.matchAll(new RegExp(`^-A ${name} (.*)$`, 'gm'))].map((match) => match[1]!);
const live = (nat: string): LiveTables => parseTables(`*nat\n${nat}COMMIT\n`);

describe('rendered rules', () => {
  it('redirects members of the set only, in mode services', () => {
    const text = table(render(input({}, '10.0.0.0/8:8000-9000\nfd00::/8')), 'nat');
    expect(text.split('\n').filter((line) => !line.includes('MESH_DNS'))).toEqual(
      `*nat
:MESH_KEEP - [0:0]
:MESH_CATCH - [0:0]
:MESH_TAKE - [0:0]
:MESH_DOWN - [0:0]
:MESH_OUT - [0:0]
-A MESH_KEEP -m conntrack --ctstate NEW -j RETURN
-A MESH_CATCH -p tcp -m tcp --dport 22 -j RETURN
-A MESH_CATCH -d 169.254.169.254/32 -j RETURN
-A MESH_CATCH -d 10.0.0.0/8 -p tcp -m tcp --dport 8000:9000 -j RETURN
-A MESH_CATCH -p tcp -j MESH_TAKE
-A MESH_TAKE -p tcp -m set --match-set MESH_DOWN4 dst,dst -j MESH_DOWN
-A MESH_TAKE -p tcp -j REDIRECT --to-ports 15001
-A MESH_DOWN -j MARK --set-xmark 0x10000000/0x10000000
-A MESH_DOWN -j ACCEPT
-A MESH_OUT -d 127.0.0.0/8 -j RETURN
-A MESH_OUT -m owner --uid-owner 990 -j RETURN
-A MESH_OUT -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 15001 -j RETURN
-A MESH_OUT -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 15008 -j RETURN
-A MESH_OUT -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 15090 -j RETURN
-A MESH_OUT -d 240.0.0.1/32 -p tcp -m tcp --syn -g MESH_CATCH
-A MESH_OUT -p tcp -m tcp --syn -m set --match-set MESH_DST4 dst,dst -g MESH_CATCH
-I OUTPUT 2 -j MESH_OUT
COMMIT
`.split('\n'),
    );
  });

  it('redirects everything else in mode all, from bridges too, for IPv6', () => {
    const text = render(input({ mode: 'all', bridges: ['docker0', 'br-x'] }, 'fd00::/8'), 'ipv6');
    expect(chain(text, 'MESH_CATCH')).toEqual([
      '-p tcp -m tcp --dport 22 -j RETURN',
      '-d fd00::/8 -j RETURN',
      '-p tcp -j MESH_TAKE',
    ]);
    expect(chain(text, 'MESH_OUT').at(0)).toBe('-d ::1/128 -j RETURN');
    expect(chain(text, 'MESH_OUT').at(-1)).toBe('-p tcp -m tcp --syn -g MESH_CATCH');
    expect(chain(text, 'MESH_PRE')).toEqual([
      '-m addrtype --dst-type LOCAL -j RETURN',
      '-i docker0 -p tcp -m tcp --syn -g MESH_CATCH',
      '-i br-x -p tcp -m tcp --syn -g MESH_CATCH',
    ]);
    expect(table(text, 'nat')).toContain('-I PREROUTING 2 -j MESH_PRE\n');
  });

  it('asks for a sign of life, for a share, and for certain callers', () => {
    const only = { uids: [1000], cgroups: [{ cgroup: 'system.slice/a\\x2db.service', inode: 7 }] };
    const text = render(
      input({ deadAfter: '1500ms', percent: 10, bridges: ['docker0'] }, '', {
        only,
        exempt: [{ uid: 33 }, { cgroup: 'system.slice/backup.service', inode: 8 }],
      }),
    );
    expect(chain(text, 'MESH_CATCH').at(-1)).toBe(
      '-p tcp -m recent --rcheck --seconds 2 --name mesh4 --mask 0.0.0.0 --rdest -m statistic --mode random --probability 0.10000000009 -j MESH_TAKE',
    );
    expect(chain(text, 'MESH_ALIVE')).toEqual([
      '-o lo -p udp -m udp --dport 15001 -m owner --uid-owner 990 -m recent --set --name mesh4 --mask 0.0.0.0 --rdest -j DROP',
    ]);
    const out = chain(text, 'MESH_OUT');
    expect(out.slice(5).filter((rule) => !rule.includes('240.0.0.1'))).toEqual([
      '-m owner --uid-owner 33 -j RETURN',
      '-m cgroup --path "system.slice/backup.service" -j RETURN',
      '-p tcp -m tcp --syn -m set --match-set MESH_DST4 dst,dst -m owner --uid-owner 1000 -g MESH_CATCH',
      '-p tcp -m tcp --syn -m set --match-set MESH_DST4 dst,dst -m cgroup --path "system.slice/a\\\\x2db.service" -g MESH_CATCH',
    ]);
    // Nobody knows who calls from a container.
    expect(text).not.toContain('MESH_PRE ');
    const nobody = render(input({}, '', { only: { uids: [], cgroups: [] } }));
    expect(nobody).not.toContain('MESH_DST4');
  });

  it('refuses strict services and stray packets to virtual addresses in every state, whatever the mode', () => {
    for (const mode of ['services', 'all', 'observe', 'off']) {
      for (const state of ['applied', 'withdrawn', 'unattended'] as const) {
        const text = render(input({ mode }, '10.0.0.9'), 'ipv4', state);
        expect(chain(text, 'MESH_MARK'), `${mode} ${state}`).toEqual([
          '-p tcp -m tcp --dport 22 -j RETURN',
          '-d 169.254.169.254/32 -j RETURN',
          '-d 10.0.0.9/32 -j RETURN',
          '-j MARK --set-xmark 0x10000000/0x10000000',
        ]);
        expect(table(text, 'filter')).toBe(`*filter
:MESH_REFUSE - [0:0]
:MESH_NEAR - [0:0]
:MESH_GUARD - [0:0]
:MESH_IN - [0:0]
:MESH_FWD - [0:0]
:MESH_VIP - [0:0]
-A MESH_REFUSE -p tcp -m tcp --dport 22 -j RETURN
-A MESH_REFUSE -d 169.254.169.254/32 -j RETURN
-A MESH_REFUSE -d 10.0.0.9/32 -j RETURN
-A MESH_REFUSE -p tcp -j REJECT --reject-with tcp-reset
-A MESH_NEAR -m set --match-set MESH_BESIDE4 dst,dst -j RETURN
-A MESH_NEAR -p tcp -m tcp --dport 15001 -j RETURN
-A MESH_NEAR -p tcp -m tcp --dport 15008 -j RETURN
-A MESH_NEAR -p tcp -m tcp --dport 15090 -j RETURN
-A MESH_NEAR -j MESH_REFUSE
-A MESH_GUARD -p tcp -m tcp ! --syn -j RETURN
-A MESH_GUARD -m owner --uid-owner 990 -j RETURN
-A MESH_GUARD -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 15001 -j RETURN
-A MESH_GUARD -p tcp -m mark --mark 0x10000000/0x10000000 -j REJECT --reject-with tcp-reset
-A MESH_GUARD -p tcp -m tcp --syn -m set --match-set MESH_STRICT4 dst,dst -j MESH_REFUSE
-A MESH_IN -p tcp -m tcp ! --syn -j RETURN
-A MESH_IN -i lo -j RETURN
-A MESH_IN -p tcp -m tcp --dport 15001 -j RETURN
-A MESH_IN -p tcp -m mark --mark 0x10000000/0x10000000 -j REJECT --reject-with tcp-reset
-A MESH_IN -p tcp -m tcp --syn -m set --match-set MESH_HOST4 dst,dst -j MESH_REFUSE
-A MESH_IN -p tcp -m tcp --syn -m set --match-set MESH_PORT4 dst -j MESH_NEAR
-A MESH_FWD -p tcp -m tcp ! --syn -j RETURN
-A MESH_FWD -p tcp -m mark --mark 0x10000000/0x10000000 -j REJECT --reject-with tcp-reset
-A MESH_FWD -p tcp -m tcp --syn -m set --match-set MESH_STRICT4 dst,dst -j MESH_REFUSE
-A MESH_VIP ! -d 240.0.0.0/4 -j RETURN
-A MESH_VIP -p tcp -j REJECT --reject-with tcp-reset
-A MESH_VIP -j REJECT --reject-with icmp-port-unreachable
-I OUTPUT 1 -j MESH_GUARD
-I OUTPUT 2 -j MESH_VIP
-I INPUT 1 -j MESH_IN
-I FORWARD 1 -j MESH_FWD
-I FORWARD 2 -j MESH_VIP
COMMIT
`);
        expect(planRules(input(), 'ipv6', state).routes).toEqual([
          { family: 'ipv6', kind: 'route', spec: 'fd6d:6573:6800::/48 dev lo proto 109' },
        ]);
      }
    }
  });

  it('refuses in the security table as well, with what that table can, in families that are asked for', () => {
    for (const state of ['applied', 'withdrawn', 'unattended'] as const) {
      const text = render(input({}, '10.0.0.9', { backstop: ['ipv4'] }), 'ipv4', state);
      const closed = (name: string): string => table(text, name).replace(/.*MESH_VIP.*\n/g, '');
      expect(closed('security')).toBe(
        closed('filter').replace('*filter', '*security').replaceAll('REJECT --reject-with tcp-reset', 'DROP'),
      );
      expect(closed('security')).toContain('-I FORWARD 1 -j MESH_FWD\n');
      expect(render(input({}, '', { backstop: ['ipv4'] }), 'ipv6', state)).not.toContain('*security');
    }
  });

  it('redirects nothing when withdrawn, and answers no names when unattended', () => {
    const withdrawn = render(input(), 'ipv4', 'withdrawn');
    expect(withdrawn).not.toMatch(/MESH_OUT|MESH_CATCH|MESH_ALIVE|MESH_DOWN|MESH_DST/);
    expect(withdrawn).toContain('MESH_DNS');
    const unattended = render(input(), 'ipv4', 'unattended');
    expect(unattended).not.toMatch(/MESH_OUT|MESH_CATCH|MESH_ALIVE|MESH_DOWN|MESH_DST|MESH_DNS/);
    expect(chain(unattended, 'MESH_KEEP')).toHaveLength(1);
  });

  it('leaves alone what stands right, and moves other jumps in the same commit', () => {
    const plan = planRules(
      input({}, '', { names: { ...input().names, ipv4: 'off', ipv6: 'off' } }),
      'ipv4',
      'applied',
    );
    const natOf = (tables: LiveTables): string => table(renderRules(plan, tables), 'nat');
    const all = natOf(live(''))
      .split('\n')
      .filter((line) => line.startsWith(':') || line.startsWith('-A'))
      .map((line) => `${line}\n`)
      .join('');
    expect(natOf(live(`:OUTPUT ACCEPT [0:0]\n${all}-A OUTPUT -j MESH_OUT\n-A OUTPUT -j DOCKER\n`))).toBe('');
    expect(natOf(live(`${all}-A MESH_TAKE -j RETURN\n-A OUTPUT -j MESH_OUT\n-A OUTPUT -j DOCKER\n`))).toBe(
      `*nat
:MESH_TAKE - [0:0]
-A MESH_TAKE -p tcp -m set --match-set MESH_DOWN4 dst,dst -j MESH_DOWN
-A MESH_TAKE -p tcp -j REDIRECT --to-ports 15001
COMMIT
`,
    );
    expect(
      natOf(
        live(
          `${all}:MESH_OLD - [0:0]\n-A PREROUTING -i b0 -j MESH_OLD\n-A OUTPUT -j DOCKER\n-A OUTPUT -j MESH_OUT\n-A OUTPUT -j MESH_OUT\n`,
        ),
      ),
    ).toBe(
      '*nat\n:MESH_OLD - [0:0]\n-D OUTPUT -j MESH_OUT\n-D OUTPUT -j MESH_OUT\n-D PREROUTING -i b0 -j MESH_OLD\n-I OUTPUT 1 -j MESH_OUT\n-X MESH_OLD\nCOMMIT\n'.replace(
        '-D OUTPUT -j MESH_OUT\n-D OUTPUT -j MESH_OUT\n-D PREROUTING -i b0 -j MESH_OLD\n',
        '-D PREROUTING -i b0 -j MESH_OLD\n-D OUTPUT -j MESH_OUT\n-D OUTPUT -j MESH_OUT\n',
      ),
    );
  });

  it('renders chains anew that are asked for, though their text stands', () => {
    const plan = planRules(
      input({}, '', { exempt: [{ cgroup: 'system.slice/a.service', inode: 1 }] }),
      'ipv4',
      'applied',
    );
    const text = renderRules(plan);
    const standing = parseTables(
      text
        .replace(/^-I (\S+) \d+ (.*)$/gm, '-A $1 $2')
        .replace('"system.slice/a.service"', 'system.slice/a.service'),
    );
    expect(renderRules(plan, standing)).toBe('');
    const anew = renderRules(plan, standing, (rules) => rules.some((rule) => rule.includes('cgroup')));
    expect(anew.match(/^:.*$/gm)).toEqual([':MESH_OUT - [0:0]']);
  });

  it('takes every trace out, or all but refusals and the inert rule', () => {
    const tables = parseTables(
      '*nat\n:OUTPUT ACCEPT [0:0]\n:MESH_KEEP - [0:0]\n:MESH_OUT - [0:0]\n:DOCKER - [0:0]\n-A OUTPUT -j MESH_OUT\n-A MINE -p tcp -g MESH_OLD\n-A MESH_OUT -j RETURN\nCOMMIT\n*filter\n:MESH_GUARD - [0:0]\n-A OUTPUT -j MESH_GUARD\nCOMMIT\n',
    );
    expect(renderRules(planNothing('ipv4'), tables)).toBe(
      '*nat\n:MESH_KEEP - [0:0]\n:MESH_OUT - [0:0]\n-D OUTPUT -j MESH_OUT\n-D MINE -p tcp -g MESH_OLD\n-X MESH_KEEP\n-X MESH_OUT\nCOMMIT\n*filter\n:MESH_GUARD - [0:0]\n-D OUTPUT -j MESH_GUARD\n-X MESH_GUARD\nCOMMIT\n',
    );
    expect(renderRules(planInert('ipv4'), tables)).toBe(
      '*nat\n:MESH_KEEP - [0:0]\n:MESH_OUT - [0:0]\n-A MESH_KEEP -m conntrack --ctstate NEW -j RETURN\n-D OUTPUT -j MESH_OUT\n-D MINE -p tcp -g MESH_OLD\n-X MESH_OUT\nCOMMIT\n',
    );
    expect(renderRules(planNothing('ipv4'), parseTables(''))).toBe('');
    // What marks for the refusals, and leads the answers of live connections back, is none that takes any.
    const others = parseTables(
      ['mangle', 'security']
        .map((name) => `*${name}\n:MESH_IN - [0:0]\n-A INPUT -j MESH_IN\nCOMMIT\n`)
        .join(''),
    );
    expect(renderRules(planInert('ipv4'), others)).not.toContain('MESH_IN');
    expect(renderRules(planNothing('ipv4'), others).match(/-X MESH_IN/g)).toHaveLength(2);
  });

  it('renders sets by family, for those that the rules of a state name', () => {
    const sets = setsOf({
      redirect: ['10.0.0.2:80', '10.0.0.1:80', '[fd00::1]:443'],
      strict: ['10.0.0.1:80'],
      ports: [80],
    });
    const [ipv4, ipv6] = renderAll(input(), sets);
    const create = (name: string, family: string) =>
      `create ${name} hash:ip,port family ${family} hashsize 1024 maxelem 65536\n`;
    expect(ipv4!.sets).toBe(
      `${create('MESH_STRICT4', 'inet')}add MESH_STRICT4 10.0.0.1,tcp:80\n${create('MESH_HOST4', 'inet')}${create('MESH_BESIDE4', 'inet')}create MESH_PORT4 bitmap:port range 0-65535\nadd MESH_PORT4 80\n${create('MESH_DOWN4', 'inet')}${create('MESH_DST4', 'inet')}add MESH_DST4 10.0.0.1,tcp:80\nadd MESH_DST4 10.0.0.2,tcp:80\n`,
    );
    expect(ipv6!.sets).toContain('add MESH_DST6 fd00::1,tcp:443\n');
    expect(ipv4!.routes).toEqual(['-4 route add 240.0.0.0/4 dev lo proto 109']);
    expect(renderAll(input({ mode: 'off' }), sets)[0]!.sets.match(/MESH_\w+ (hash|bitmap)/g)).toEqual([
      'MESH_STRICT4 hash',
      'MESH_HOST4 hash',
      'MESH_BESIDE4 hash',
      'MESH_PORT4 bitmap',
    ]);
  });
});
