import { describe, expect, it } from 'vitest';
import { NOTHING_SAID, ruleBase } from '../../../../src/capture/rules/input.ts';
import { observeFragments } from '../../../../src/capture/rules/observe.ts';
import { planRules } from '../../../../src/capture/rules/plan.ts';
import { renderRules } from '../../../../src/capture/rules/render.ts';
import { captureConfig } from '../../../support/wanted.ts';

const input = (capture: object) => ({ ...NOTHING_SAID, ...ruleBase(captureConfig(capture), 990, []) });

describe('observeFragments', () => {
  it('shows what begins, but not loopback and the daemon itself', () => {
    const [fragment, ...others] = observeFragments(input({ mode: 'observe', observeGroup: 77 }), 'ipv6');
    expect(others).toEqual([]);
    expect(fragment).toEqual({
      table: 'mangle',
      chains: new Map([
        [
          'MESH_SEE',
          [
            '-d ::1/128 -j RETURN',
            '-m owner --uid-owner 990 -j RETURN',
            '-p tcp -m tcp --syn -j NFLOG --nflog-group 77 --nflog-size 80',
          ],
        ],
      ]),
      jumps: [['OUTPUT', 'MESH_SEE']],
    });
  });

  it('shows what begins behind bridges', () => {
    const [fragment] = observeFragments(input({ mode: 'observe', bridges: ['docker0', 'br1'] }), 'ipv4');
    expect(fragment?.chains.get('MESH_SEE_PRE')).toEqual([
      '-i docker0 -p tcp -m tcp --syn -j NFLOG --nflog-group 15008 --nflog-size 80',
      '-i br1 -p tcp -m tcp --syn -j NFLOG --nflog-group 15008 --nflog-size 80',
    ]);
    expect(fragment?.jumps).toContainEqual(['PREROUTING', 'MESH_SEE_PRE']);
  });

  it('is part of mode observe alone, in which nothing is redirected', () => {
    for (const mode of ['services', 'all', 'off'] as const)
      expect(observeFragments(input({ mode }), 'ipv4')).toEqual([]);
    const rules = renderRules(planRules(input({ mode: 'observe' }), 'ipv4', 'applied'));
    expect(rules).toContain('-A MESH_SEE -p tcp');
    expect(rules).not.toContain('REDIRECT');
    expect(renderRules(planRules(input({ mode: 'observe' }), 'ipv4', 'withdrawn'))).not.toContain('NFLOG');
  });
});
