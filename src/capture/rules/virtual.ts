import type { Family } from '../names.ts';
import { type Fragment, ROUTE_PROTOCOL, type RouteEntry } from './fragment.ts';
import type { RuleInput } from './input.ts';

/*
 * Virtual addresses answer on the ports of their service only. Whatever neither redirection nor the fallback has led
 * elsewhere by the time it meets the filter table (another port, UDP, a service that is gone) is refused at once.
 */

const CHAIN = 'MESH_VIP';

const UNREACHABLE = {
  ipv4: 'icmp-port-unreachable',
  ipv6: 'icmp6-port-unreachable',
} as const satisfies Record<Family, string>;

export function virtualFragments(input: RuleInput, family: Family): readonly Fragment[] {
  const network = input.names[family];
  if (network === 'off') return [];
  const rules = [
    `! -d ${network} -j RETURN`,
    '-p tcp -j REJECT --reject-with tcp-reset',
    `-j REJECT --reject-with ${UNREACHABLE[family]}`,
  ];
  return [
    {
      table: 'filter',
      chains: new Map([[CHAIN, rules]]),
      jumps: [
        ['OUTPUT', CHAIN],
        ['FORWARD', CHAIN],
      ],
    },
  ];
}

/** A way to virtual addresses: the kernel looks for one before it asks any rule. */
export function virtualRoutes(input: RuleInput, family: Family): readonly RouteEntry[] {
  const network = input.names[family];
  return network === 'off'
    ? []
    : [{ family, kind: 'route', spec: `${network} dev lo proto ${ROUTE_PROTOCOL}` }];
}
