import ipaddr from 'ipaddr.js';
import { type EndpointKey, endpointKey, parseEndpoint } from '../model/address.ts';

/** Ranges that no service can be reached at through a redirect: the host's own loopback, and what is not unicast. */
const NEVER = new Set(['loopback', 'unspecified', 'multicast', 'broadcast', 'linkLocal']);

/**
 * The members of the redirected sets for what the services of a snapshot claim (`snapshot.destinations`): unique,
 * sorted, without loopback, link-local and multicast addresses, whatever a registry says. IPv6 link-local addresses
 * need a zone that a claim does not have; IPv4 link-local is where clouds keep their metadata service.
 */
export function redirectEntries(destinations: Iterable<EndpointKey>): EndpointKey[] {
  const entries = new Set<EndpointKey>();
  for (const key of destinations) {
    const endpoint = parseEndpoint(key);
    if (endpoint === undefined || NEVER.has(ipaddr.parse(endpoint.ip).range())) continue;
    entries.add(endpointKey(endpoint));
  }
  return [...entries].sort();
}
