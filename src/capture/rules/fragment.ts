import type { Family } from '../names.ts';

/** Tables of iptables, in the order in which a packet that this host sends meets them (conntrack comes after raw). */
export const tables = ['raw', 'mangle', 'nat', 'filter', 'security'] as const;
export type Table = (typeof tables)[number];

/**
 * - `applied`: new connections are intercepted.
 * - `withdrawn`: they go direct (suspended, disabled) while the agent runs: names are answered, live connections go on.
 * - `unattended`: no agent runs. What must hold without it holds: refusals of strict services, virtual addresses, and
 *   what connections that still live depend on.
 */
export type PlannedState = 'applied' | 'withdrawn' | 'unattended';

/** What one concern (redirection, names, strict services, …) adds to one table of one family. Names begin with MESH_. */
export interface Fragment {
  readonly table: Table;
  /** Chains of ours and their rules, as iptables-save prints them, without `-A CHAIN`. */
  readonly chains: ReadonlyMap<string, readonly string[]>;
  /** Built-in chain → chain of ours; those of all fragments stand first in their built-in chain, in the order of the plan. */
  readonly jumps: readonly (readonly [builtin: string, chain: string])[];
}

/** `proto` of everything of ours in routing tables ("m" in ASCII; no other program is known to use it): so leftovers are found. */
export const ROUTE_PROTOCOL = 109;

/** One routing entry of ours, for `ip -4|-6 KIND add SPEC`; never more than a handful. */
export interface RouteEntry {
  readonly family: Family;
  readonly kind: 'route' | 'rule';
  /** For example `240.0.0.0/4 dev lo proto 109`, always with {@link ROUTE_PROTOCOL}. */
  readonly spec: string;
}
