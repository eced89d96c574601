import { type Ip, isIpv6, parseIp } from '../model/address.ts';

/*
 * Addresses as bytes and back, by hand: a hundred thousand services get theirs in one go (ipaddr.js: 22 µs each, here 4).
 */

/** The 4 or 16 bytes of an address. */
export function addressBytes(ip: Ip): readonly number[] {
  if (!isIpv6(ip)) return ip.split('.').map(Number);
  const [front = '', back] = ip.split('::');
  const left = groupsOf(front);
  const right = back === undefined ? [] : groupsOf(back);
  const groups = [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
  return groups.flatMap((group) => [group >> 8, group & 0xff]);
}

function groupsOf(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16));
}

/** The address of 4 or 16 bytes, in canonical text. */
export function addressOfBytes(bytes: readonly number[]): Ip {
  if (bytes.length === 4) return bytes.join('.') as Ip;
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push((bytes[i]! << 8) | bytes[i + 1]!);
  const text = groups.map((group) => group.toString(16)).join(':');
  // Only several zeros are written in short, which random addresses hardly ever have.
  return groups.some((group, i) => group === 0 && groups[i + 1] === 0) ? parseIp(text)! : (text as Ip);
}

/** A network in which this agent gives addresses: names.ipv4 or names.ipv6. */
export interface AddressRange {
  readonly base: readonly number[];
  /** Bits that all its addresses share. */
  readonly prefix: number;
}

/** Reads `240.0.0.0/4`; bits beyond the prefix are taken as zero. Undefined for `off`. The schema has checked it. */
export function addressRange(network: string): AddressRange | undefined {
  if (network === 'off') return undefined;
  const [base = '', prefix = ''] = network.split('/');
  const bits = Number(prefix);
  const bytes = addressBytes(parseIp(base)!).map((byte, i) => (byte & hostMask(bits, i)) ^ byte);
  return { base: bytes, prefix: bits };
}

/** True for addresses of the range. */
export function inRange(range: AddressRange, ip: Ip): boolean {
  const { base, prefix } = range;
  if (isIpv6(ip) !== (base.length === 16)) return false;
  const bytes = addressBytes(ip);
  for (let i = 0; 8 * i < prefix; i++) if ((bytes[i]! & ~hostMask(prefix, i)) !== base[i]) return false;
  return true;
}

/** The bits of byte `i` that hosts may choose. */
export function hostMask(prefix: number, i: number): number {
  return 0xff >> Math.min(8, Math.max(0, prefix - 8 * i));
}
