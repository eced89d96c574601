/** The two families, always treated alike. */
export const families = ['ipv4', 'ipv6'] as const;
export type Family = (typeof families)[number];

/**
 * Chains of ours in the nat table. Nothing else in any table is ours but jumps to them.
 * `keep` holds one inert rule for as long as redirected connections may live: when the last rule that needs
 * connection tracking goes, the kernel stops tracking and live redirected connections are reset (measured; an
 * empty chain does not help, one rule that nobody reaches does).
 */
export const chains = {
  keep: 'MESH_KEEP',
  out: 'MESH_OUT',
  pre: 'MESH_PRE',
  catch: 'MESH_CATCH',
} as const;
export type ChainName = (typeof chains)[keyof typeof chains];

/** Everything of ours begins with this, so that leftovers of any version are found. */
export const OWN_PREFIX = 'MESH_';

/** Sets of redirected destinations; the second is filled, swapped in and destroyed. */
export const setNames = {
  ipv4: { live: 'MESH_DST4', next: 'MESH_DST4_NEXT' },
  ipv6: { live: 'MESH_DST6', next: 'MESH_DST6_NEXT' },
} as const satisfies Record<Family, { readonly live: string; readonly next: string }>;
