import { describe, expect, it } from 'vitest';
import { isDestination, parseAllowList } from '../../../src/capture/allow-list.ts';
import { redirectEntries } from '../../../src/capture/capture-plan.ts';
import { parseTable } from '../../../src/capture/live-table.ts';
import { renderAll } from '../../../src/capture/rendered.ts';
import {
  planRules,
  type RuleInput,
  renderRemove,
  renderRules,
  renderWithdraw,
} from '../../../src/capture/rules.ts';
import type { EndpointKey } from '../../../src/model/address.ts';

function input(over: Partial<RuleInput['capture']> = {}, list = ''): RuleInput {
  return {
    capture: { mode: 'services', port: 15001, bridges: [], ...over },
    uid: 990,
    ports: [15008, 15090],
    protected: parseAllowList('tcp/22\n169.254.169.254').entries.filter(isDestination),
    allowList: parseAllowList(list).entries.filter(isDestination),
  };
}
const keys = (...texts: string[]): EndpointKey[] => texts as EndpointKey[];

describe('rendered rules', () => {
  it('redirects members of the set only, in mode services', () => {
    expect(renderRules(planRules(input({}, '10.0.0.0/8:8000-9000\nfd00::/8'), 'ipv4'))).toBe(
      `*nat
:MESH_KEEP - [0:0]
:MESH_CATCH - [0:0]
:MESH_OUT - [0:0]
:MESH_PRE - [0:0]
-A MESH_KEEP -m conntrack --ctstate NEW -j RETURN
-A MESH_CATCH -p tcp -m tcp --dport 22 -j RETURN
-A MESH_CATCH -d 169.254.169.254/32 -j RETURN
-A MESH_CATCH -d 10.0.0.0/8 -p tcp -m tcp --dport 8000:9000 -j RETURN
-A MESH_CATCH -p tcp -j REDIRECT --to-ports 15001
-A MESH_OUT -d 127.0.0.0/8 -j RETURN
-A MESH_OUT -m owner --uid-owner 990 -j RETURN
-A MESH_OUT -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 15001 -j RETURN
-A MESH_OUT -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 15008 -j RETURN
-A MESH_OUT -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 15090 -j RETURN
-A MESH_OUT -p tcp -m tcp --syn -m set --match-set MESH_DST4 dst,dst -j MESH_CATCH
-I OUTPUT 1 -j MESH_OUT
COMMIT
`,
    );
  });

  it('redirects everything else in mode all, from bridges too, for IPv6', () => {
    expect(
      renderRules(planRules(input({ mode: 'all', bridges: ['docker0', 'br-x'] }, 'fd00::/8'), 'ipv6')),
    ).toBe(
      `*nat
:MESH_KEEP - [0:0]
:MESH_CATCH - [0:0]
:MESH_OUT - [0:0]
:MESH_PRE - [0:0]
-A MESH_KEEP -m conntrack --ctstate NEW -j RETURN
-A MESH_CATCH -p tcp -m tcp --dport 22 -j RETURN
-A MESH_CATCH -d fd00::/8 -j RETURN
-A MESH_CATCH -p tcp -j REDIRECT --to-ports 15001
-A MESH_OUT -d ::1/128 -j RETURN
-A MESH_OUT -m owner --uid-owner 990 -j RETURN
-A MESH_OUT -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 15001 -j RETURN
-A MESH_OUT -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 15008 -j RETURN
-A MESH_OUT -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 15090 -j RETURN
-A MESH_OUT -p tcp -m tcp --syn -j MESH_CATCH
-A MESH_PRE -m addrtype --dst-type LOCAL -j RETURN
-A MESH_PRE -i docker0 -p tcp -m tcp --syn -j MESH_CATCH
-A MESH_PRE -i br-x -p tcp -m tcp --syn -j MESH_CATCH
-I OUTPUT 1 -j MESH_OUT
-I PREROUTING 1 -j MESH_PRE
COMMIT
`,
    );
  });

  it('leaves jumps alone that stand right, and moves others in the same commit', () => {
    const plan = planRules(input(), 'ipv4');
    const right = parseTable(
      '*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j MESH_OUT\n-A OUTPUT -j DOCKER\nCOMMIT\n',
    );
    expect(renderRules(plan, right)).not.toMatch(/^-[ID]/m);
    const wrong = parseTable(
      '*nat\n:OUTPUT ACCEPT [0:0]\n-A PREROUTING -i b0 -j MESH_PRE\n-A OUTPUT -j DOCKER\n-A OUTPUT -j MESH_OUT\n-A OUTPUT -j MESH_OUT\n',
    );
    expect(renderRules(plan, wrong)).toContain(
      '-D OUTPUT -j MESH_OUT\n-D OUTPUT -j MESH_OUT\n-D PREROUTING -i b0 -j MESH_PRE\n-I OUTPUT 1 -j MESH_OUT\nCOMMIT\n',
    );
  });

  it('has nothing to say in mode off on a clean host', () => {
    const [ipv4] = renderAll(input({ mode: 'off' }), keys('10.0.0.1:80'));
    expect(ipv4).toEqual({ family: 'ipv4', sets: '', rules: '' });
  });

  it('withdraws by emptying chains, keeps the inert rule, and removes every trace later', () => {
    const live = parseTable(
      ':OUTPUT ACCEPT [0:0]\n:MESH_KEEP - [0:0]\n:MESH_OUT - [0:0]\n:DOCKER - [0:0]\n-A OUTPUT -j MESH_OUT\n-A MINE -p tcp -g MESH_OLD\n-A MESH_OUT -j RETURN\n',
    );
    expect(renderWithdraw(live)).toBe(
      '*nat\n:MESH_KEEP - [0:0]\n:MESH_OUT - [0:0]\n-A MESH_KEEP -m conntrack --ctstate NEW -j RETURN\nCOMMIT\n',
    );
    expect(renderRemove(live)).toBe(
      '*nat\n:MESH_KEEP - [0:0]\n:MESH_OUT - [0:0]\n-D OUTPUT -j MESH_OUT\n-D MINE -p tcp -g MESH_OLD\n-X MESH_KEEP\n-X MESH_OUT\nCOMMIT\n',
    );
    expect(renderWithdraw(parseTable(''))).toBe('');
    expect(renderRemove(parseTable(''))).toBe('');
  });

  it('renders sets by family', () => {
    const entries = redirectEntries(
      keys(
        '10.0.0.2:80',
        '[fe80::1]:80',
        '[ff02::1]:80',
        '[::]:80',
        '0.0.0.0:80',
        '169.254.169.254:80',
        '255.255.255.255:80',
        '10.0.0.1:80',
        '[fd00::1]:443',
        '127.0.0.1:80',
        '[::1]:80',
        '224.0.0.1:80',
        '10.0.0.1:80',
      ),
    );
    expect(entries).toEqual(['10.0.0.2:80', '10.0.0.1:80', '[fd00::1]:443']);
    expect(renderAll(input(), entries).map((family) => family.sets)).toEqual([
      'create MESH_DST4 hash:ip,port family inet hashsize 1024 maxelem 65536\nadd MESH_DST4 10.0.0.1,tcp:80\nadd MESH_DST4 10.0.0.2,tcp:80\n',
      'create MESH_DST6 hash:ip,port family inet6 hashsize 1024 maxelem 65536\nadd MESH_DST6 fd00::1,tcp:443\n',
    ]);
  });
});
