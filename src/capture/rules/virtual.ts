import type { Family } from '../names.ts';
import { type Fragment, ROUTE_PROTOCOL, type RouteEntry } from './fragment.ts';
import type { RuleInput } from './input.ts';

/*
 * Virtual addresses answer on the ports of their service only. Whatever neither redirection nor the fallback has led
 * elsewhere by the time it meets the filter table (another port, UDP, a service that is gone) is refused at once.
 */

const CHAIN = 'MESH_VIP';
const PRE = 'MESH_VIP_PRE';

const UNREACHABLE = {
  ipv4: 'icmp-port-unreachable',
  ipv6: 'icmp6-port-unreachable',
} as const satisfies Record<Family, string>;

export function virtualFragments(input: RuleInput, family: Family): readonly Fragment[] {
  const network = input.names[family];
  if (network === 'off') return [];
  const { bridges } = input.capture;
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
    ...(family === 'ipv6' && bridges.length > 0 ? [strayDatagrams(input, network)] : []),
  ];
}

/**
 * The kernel takes an IPv6 route to lo for a refusal of its own where packets are forwarded: they never meet the filter
 * table, and what it says instead (no route) is told to TCP, but to no UDP socket. So datagrams of containers go to a
 * port of this host where nobody listens, and the kernel says that.
 */
function strayDatagrams({ capture }: RuleInput, network: string): Fragment {
  const { bridges, port } = capture;
  const rules = bridges.map((bridge) => `-d ${network} -i ${bridge} -p udp -j REDIRECT --to-ports ${port}`);
  return { table: 'nat', chains: new Map([[PRE, rules]]), jumps: [['PREROUTING', PRE]] };
}

/** A way to virtual addresses: the kernel looks for one before it asks any rule. */
export function virtualRoutes(input: RuleInput, family: Family): readonly RouteEntry[] {
  const network = input.names[family];
  return network === 'off'
    ? []
    : [{ family, kind: 'route', spec: `${network} dev lo proto ${ROUTE_PROTOCOL}` }];
}
