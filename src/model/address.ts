import ipaddr from 'ipaddr.js';

/** An IP address in canonical text: dotted IPv4, or RFC 5952 IPv6. IPv4-mapped IPv6 is folded to IPv4. */
export type Ip = string & { readonly __ip: unique symbol };

/** One end of a TCP connection. */
export interface Endpoint {
  readonly ip: Ip;
  /** 1–65535. */
  readonly port: number;
}

/** Where an intercepted connection was going (SO_ORIGINAL_DST). Branded, so that no client address is taken for one. */
export type OriginalDestination = Endpoint & { readonly __originalDestination: unique symbol };

/** Who opened a connection. Branded, so that it is never dialled. */
export type ClientAddress = Endpoint & { readonly __clientAddress: unique symbol };

/** Text form of an endpoint, the key of every index by address: `10.0.0.1:80`, `[fd00::1]:80`. */
export type EndpointKey = string & { readonly __endpointKey: unique symbol };

/** Longest notation of an address: eight groups, the last two as dotted IPv4. */
const MAX_IP_TEXT = 45;

/** Reads an address in any usual notation; undefined when it is none (zone ids such as `fe80::1%eth0` are refused). */
export function parseIp(text: string): Ip | undefined {
  if (text.length > MAX_IP_TEXT || !ipaddr.isValid(text) || text.includes('%')) return undefined;
  // ipaddr.js also reads `10.1` and `0x7f000001`; operators never mean those, so only four-part IPv4 counts.
  if (!text.includes(':') && !ipaddr.IPv4.isValidFourPartDecimal(text)) return undefined;
  return ipaddr.process(text).toString() as Ip;
}

/** True for IPv6 addresses that are not IPv4-mapped (those are folded to IPv4 by {@link parseIp}). */
export function isIpv6(ip: Ip): boolean {
  return ip.includes(':');
}

/** The index key of an endpoint. */
export function endpointKey(endpoint: Endpoint): EndpointKey {
  return (
    isIpv6(endpoint.ip) ? `[${endpoint.ip}]:${endpoint.port}` : `${endpoint.ip}:${endpoint.port}`
  ) as EndpointKey;
}

/** Reads `10.0.0.1:80` or `[fd00::1]:80`; undefined when the text is neither. */
export function parseEndpoint(text: string): Endpoint | undefined {
  const match = /^(?:\[([^\]]*:[^\]]*)\]|([^:]+)):(\d{1,5})$/.exec(text);
  if (match === null) return undefined;
  const ip = parseIp(match[1] ?? match[2] ?? '');
  const port = Number(match[3]);
  if (ip === undefined || port < 1 || port > 65535) return undefined;
  return { ip, port };
}
