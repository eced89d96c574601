import { describe, expect, it } from 'vitest';
import { families } from '../../../../src/capture/names.ts';
import type { RuleInput } from '../../../../src/capture/rules/input.ts';
import { planRules } from '../../../../src/capture/rules/plan.ts';
import { transparentFragments, transparentRoutes } from '../../../../src/capture/rules/transparent.ts';

const input: RuleInput = {
  capture: { mode: 'services', port: 15_001, bridges: [], percent: 100, deadAfter: 1000, observeGroup: 0 },
  names: { domain: 'mesh', port: 15_053, ipv4: 'off', ipv6: 'off' },
  uid: 990,
  ports: [],
  protected: [],
  exempt: [],
  only: undefined,
  fallback: [],
  transparent: true,
  backstop: [],
};
const answers =
  '-p tcp -m connmark --mark 0x20000000/0x20000000 -m conntrack --ctdir REPLY ' +
  '-j CONNMARK --restore-mark --nfmask 0x20000000 --ctmask 0x20000000';

describe('the way back of connections that are made from a caller’s address', () => {
  it('marks connections of the agent from foreign addresses, and what answers in them', () => {
    const [fragment, ...others] = transparentFragments(input);
    expect(others).toEqual([]);
    expect(fragment?.table).toBe('mangle');
    expect(Object.fromEntries(fragment!.chains)).toEqual({
      MESH_SEEN: [
        '-p tcp -m tcp --syn -m owner --uid-owner 990 -m addrtype ! --src-type LOCAL -j CONNMARK --set-xmark 0x20000000/0x20000000',
        answers,
      ],
      MESH_SEEN_PRE: [`! -i lo ${answers}`],
    });
    expect(fragment?.jumps).toEqual([
      ['OUTPUT', 'MESH_SEEN'],
      ['PREROUTING', 'MESH_SEEN_PRE'],
    ]);
  });

  it.each(families)('leads marked packets to this host (%s)', (family) => {
    expect(transparentRoutes(input, family).map(({ kind, spec }) => `${kind} ${spec}`)).toEqual([
      'route local default dev lo table 109 proto 109',
      'rule fwmark 0x20000000/0x20000000 lookup 109 pref 109 proto 109',
    ]);
  });

  it('is there in every state, and only where a service of this host wants it', () => {
    for (const state of ['applied', 'withdrawn', 'unattended'] as const) {
      for (const family of families) {
        const wanted = planRules(input, family, state);
        expect(wanted.tables.get('mangle')?.chains.has('MESH_SEEN')).toBe(true);
        expect(wanted.routes.length).toBe(2);
        const unwanted = planRules({ ...input, transparent: false }, family, state);
        expect(unwanted.tables.get('mangle')?.chains.has('MESH_SEEN')).toBe(false);
        expect(unwanted.routes).toEqual([]);
      }
    }
  });
});
