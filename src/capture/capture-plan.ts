import type { EndpointKey } from '../model/address.ts';

/**
 * What no service can be reached at through a redirect, as keys begin: this host's loopback, unspecified, link-local
 * (IPv6 needs a zone that a claim does not have; on IPv4 clouds keep their metadata service there), multicast,
 * broadcast. 240.0.0.0/4 stays in: virtual addresses live there. Text suffices, since keys are canonical, and
 * parsing 100,000 of them would hold the supervisor for 300 ms at every change.
 */
const NEVER =
  /^(?:127\.|0\.|169\.254\.|2(?:2[4-9]|3\d)\.|255\.255\.255\.255:|\[(?:::1?\]|f(?:e[89ab]|f)[0-9a-f]{0,2}:))/;

/**
 * The members of the redirected sets for what the services of a snapshot claim (the keys of `snapshot.destinations`):
 * unique, without loopback, link-local and multicast addresses, whatever a registry says.
 */
export function redirectEntries(destinations: Iterable<EndpointKey>): EndpointKey[] {
  const entries = new Set<EndpointKey>();
  for (const key of destinations) if (!NEVER.test(key)) entries.add(key);
  return [...entries];
}
