/** The two families, always treated alike. */
export const families = ['ipv4', 'ipv6'] as const;
export type Family = (typeof families)[number];

/** Everything of ours begins with this, so that leftovers of any version are found. */
export const OWN_PREFIX = 'MESH_';

/** Chains of the nat table that everything else depends on. */
export const chains = {
  /**
   * Holds one inert rule for as long as redirected connections may live: when the last rule that needs connection
   * tracking goes, the kernel stops tracking and live redirected connections are reset (measured; an empty chain does
   * not help, one rule that nobody reaches does).
   */
  keep: 'MESH_KEEP',
} as const;

/**
 * Bits of the packet mark that are ours; all others are left as they are. They are set on packets that this host
 * sends or forwards, never on the wire. Kubernetes, Calico (below 0x10000000 as it is set up), Cilium, Tailscale, Istio
 * and wg-quick use other bits.
 */
export const marks = {
  /** This new connection is refused unless the agent takes it. */
  refuse: '0x10000000/0x10000000',
  /** The answer in a connection that the agent made from a caller's address; a bit of the connection's mark as well. */
  deliver: '0x20000000/0x20000000',
} as const;

/** What a set of destinations is for. */
export const setRoles = [
  'strict', // whoever is not the agent may not go there: addresses of strict services
  'hosted', // nobody from outside may come there: instances of strict services on this host
  'beside', // others' addresses of this host with a port of `ports`: open
  'ports', // ports of `hosted`: nobody from outside may come there at any address of this host
  'down', // nobody would answer: refused in place of being redirected
  'redirect', // redirected
] as const;
export type SetRole = (typeof setRoles)[number];

const NAMES: Readonly<Record<SetRole, string>> = {
  strict: 'STRICT',
  hosted: 'HOST',
  beside: 'BESIDE',
  ports: 'PORT',
  down: 'DOWN',
  redirect: 'DST',
};

/** A set in the kernel; the second is filled, swapped in and destroyed. */
export function setNames(role: SetRole, family: Family): { readonly live: string; readonly next: string } {
  const live = `${OWN_PREFIX}${NAMES[role]}${family === 'ipv4' ? 4 : 6}`;
  return { live, next: `${live}_NEXT` };
}

/** The match of a packet whose destination is in a set: address and port, or the port alone where the set holds ports. */
export function destinationIn(role: SetRole, family: Family): string {
  return `-m set --match-set ${setNames(role, family).live} ${role === 'ports' ? 'dst' : 'dst,dst'}`;
}
