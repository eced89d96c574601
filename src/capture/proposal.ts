import { BlockList } from 'node:net';
import ipaddr from 'ipaddr.js';
import { type EndpointKey, isIpv6, parseEndpoint } from '../model/address.ts';
import { type AllowEntry, formatAllowEntry, MAX_ALLOW_ENTRIES } from './allow-list.ts';
import type { Observation } from './observations.ts';

/** Addresses of one network with the same port that are proposed as the network. */
const GROUPED_ADDRESSES = 3;
/** Ports of one address that are proposed as the whole address. */
const GROUPED_PORTS = 8;
const NETWORK_PREFIX = { ipv4: 24, ipv6: 64 } as const;
/** Callers that a comment names. */
const NAMED_CALLERS = 4;

/** One line of a proposal, with who calls there. */
interface Proposed {
  readonly entry: AllowEntry;
  readonly observations: readonly Observation[];
}

interface Place {
  readonly family: 'ipv4' | 'ipv6';
  readonly address: string;
  readonly port: number;
  readonly observations: Observation[];
}

/**
 * An allow-list, as {@link parseAllowList} reads it, of the destinations of these observations, the busiest first. Where
 * several addresses of one network are called at the same port, or many ports of one address, the network or address
 * is proposed, unless it would cover one of `services`: those are for the mesh to take.
 */
export function proposeAllowList(
  observations: Iterable<Observation>,
  services: Iterable<EndpointKey>,
): string {
  const places = placesOf(observations);
  const taken = new TakenPlaces(services);
  const proposed: Proposed[] = [];
  for (const group of groupBy(places, ({ address }) => address)) {
    const { family, address } = group[0]!;
    if (group.length < GROUPED_PORTS || taken.at(family, address)) continue;
    const prefix = family === 'ipv4' ? 32 : 128;
    proposed.push({ entry: { network: { family, address, prefix } }, observations: take(places, group) });
  }
  for (const group of groupBy(places, (place) => `${networkOf(place)} ${place.port}`)) {
    const { family, port } = group[0]!;
    const network = { family, address: networkOf(group[0]!), prefix: NETWORK_PREFIX[family] };
    if (group.length < GROUPED_ADDRESSES || taken.within(network.address, port)) continue;
    proposed.push({
      entry: { network, ports: { first: port, last: port } },
      observations: take(places, group),
    });
  }
  for (const place of [...places]) {
    const { family, address, port } = place;
    const network = { family, address, prefix: family === 'ipv4' ? 32 : 128 };
    proposed.push({
      entry: { network, ports: { first: port, last: port } },
      observations: take(places, [place]),
    });
  }
  const count = ({ observations: own }: Proposed): number => own.reduce((sum, one) => sum + one.count, 0);
  proposed.sort((a, b) => count(b) - count(a));
  const lines = proposed
    .slice(0, MAX_ALLOW_ENTRIES)
    .flatMap((line) => [`# ${commentOf(line.observations)}`, formatAllowEntry(line.entry)]);
  const left = proposed.length - MAX_ALLOW_ENTRIES;
  if (left > 0) lines.push(`# ${left} more are left out: a list has at most ${MAX_ALLOW_ENTRIES} entries`);
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
}

/** True for destinations that one of the entries covers; each is compared in native code. */
export function coverage(entries: Iterable<AllowEntry>): (destination: EndpointKey) => boolean {
  const byPorts = new Map<
    string,
    { readonly first: number; readonly last: number; readonly list: BlockList }
  >();
  for (const { network, ports = { first: 1, last: 65_535 } } of entries) {
    const key = `${ports.first}-${ports.last}`;
    let known = byPorts.get(key);
    if (known === undefined) {
      known = { ...ports, list: new BlockList() };
      byPorts.set(key, known);
    }
    if (network !== undefined) known.list.addSubnet(network.address, network.prefix, network.family);
    else {
      known.list.addSubnet('0.0.0.0', 0, 'ipv4');
      known.list.addSubnet('::', 0, 'ipv6');
    }
  }
  return (destination) => {
    const endpoint = parseEndpoint(destination);
    if (endpoint === undefined) return false;
    const { ip, port } = endpoint;
    for (const { first, last, list } of byPorts.values())
      if (port >= first && port <= last && list.check(ip, isIpv6(ip) ? 'ipv6' : 'ipv4')) return true;
    return false;
  };
}

/** What services claim, by address and by network and port. */
class TakenPlaces {
  readonly #addresses = new Set<string>();
  readonly #networks = new Set<string>();

  constructor(services: Iterable<EndpointKey>) {
    for (const key of services) {
      const endpoint = parseEndpoint(key);
      if (endpoint === undefined) continue;
      const family = isIpv6(endpoint.ip) ? 'ipv6' : 'ipv4';
      this.#addresses.add(`${family} ${endpoint.ip}`);
      this.#networks.add(`${networkOf({ family, address: endpoint.ip })} ${endpoint.port}`);
    }
  }

  at(family: string, address: string): boolean {
    return this.#addresses.has(`${family} ${address}`);
  }

  within(network: string, port: number): boolean {
    return this.#networks.has(`${network} ${port}`);
  }
}

function placesOf(observations: Iterable<Observation>): Set<Place> {
  const places = new Map<string, Place>();
  for (const observation of observations) {
    const known = places.get(observation.destination);
    if (known !== undefined) {
      known.observations.push(observation);
      continue;
    }
    const endpoint = parseEndpoint(observation.destination);
    if (endpoint === undefined) continue;
    places.set(observation.destination, {
      family: isIpv6(endpoint.ip) ? 'ipv6' : 'ipv4',
      address: endpoint.ip,
      port: endpoint.port,
      observations: [observation],
    });
  }
  return new Set(places.values());
}

function groupBy(places: Iterable<Place>, keyOf: (place: Place) => string): readonly (readonly Place[])[] {
  const groups = new Map<string, Place[]>();
  for (const place of places) {
    const key = keyOf(place);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [place]);
    else group.push(place);
  }
  return [...groups.values()];
}

/** Takes places out, with what was observed there. */
function take(places: Set<Place>, group: readonly Place[]): readonly Observation[] {
  for (const place of group) places.delete(place);
  return group.flatMap(({ observations }) => observations);
}

function networkOf({ family, address }: Pick<Place, 'family' | 'address'>): string {
  const cidr = `${address}/${NETWORK_PREFIX[family]}`;
  return family === 'ipv4'
    ? ipaddr.IPv4.networkAddressFromCIDR(cidr).toString()
    : ipaddr.IPv6.networkAddressFromCIDR(cidr).toString();
}

/** `42 connections: unit:app.service (40), user:root (2)`. */
function commentOf(observations: readonly Observation[]): string {
  const callers = new Map<string, number>();
  let total = 0;
  for (const { caller, count } of observations) {
    callers.set(caller, (callers.get(caller) ?? 0) + count);
    total += count;
  }
  const sorted = [...callers].sort((a, b) => b[1] - a[1]);
  const named = sorted.slice(0, NAMED_CALLERS).map(([caller, count]) => `${caller} (${count})`);
  const rest = sorted.length > NAMED_CALLERS ? `, and ${sorted.length - NAMED_CALLERS} more` : '';
  return `${total} connection${total === 1 ? '' : 's'}: ${named.join(', ')}${rest}`;
}
