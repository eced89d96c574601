import ipaddr from 'ipaddr.js';
import type { Ip } from './address.ts';

/**
 * The address of a network of virtual addresses that no service ever gets, its first usable one: whoever connects to it is
 * answered by the agent itself, on any port. So redirection can be proved, from the program to a worker and back.
 * @param network `240.0.0.0/4`; bits beyond the prefix count as zero. Undefined for `off`.
 */
export function selfTestAddress(network: string): Ip | undefined {
  if (network === 'off') return undefined;
  const kind = network.includes(':') ? ipaddr.IPv6 : ipaddr.IPv4;
  const bytes = kind.networkAddressFromCIDR(network).toByteArray();
  bytes[bytes.length - 1] = 1;
  return ipaddr.fromByteArray(bytes).toString() as Ip;
}
