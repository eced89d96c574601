import type { TopologyPlan } from './topology.ts';

/**
 * Three hosts in two data centres. Between the data centres lies an "ingress" network on which only zone-agents
 * stand, two for each zone; nothing forwards packets, so hosts of different zones cannot reach each other.
 *
 *     dc1 10.81.1.0/24                 ingress 10.81.9.0/24                 dc2 10.81.2.0/24
 *     a .1 ──┐                     ┌── gw1a .11    gw2a .21 ──┐
 *     b .2 ──┴── gw1a, gw1b ───────┴── gw1b .12    gw2b .22 ──┴─────────────── c .3
 */
export const twoZones = {
  networks: {
    dc1: { ipv4: '10.81.1', ipv6: 'fd81:1', router: true },
    dc2: { ipv4: '10.81.2', ipv6: 'fd81:2', router: true },
    ingress: { ipv4: '10.81.9', ipv6: 'fd81:9', router: false },
  },
  hosts: {
    a: { dc1: 1 },
    b: { dc1: 2 },
    c: { dc2: 3 },
    gw1a: { dc1: 11, ingress: 11 },
    gw1b: { dc1: 12, ingress: 12 },
    gw2a: { dc2: 21, ingress: 21 },
    gw2b: { dc2: 22, ingress: 22 },
  },
} as const satisfies TopologyPlan;
