import ipaddr from 'ipaddr.js';
import type { Ip } from '../../model/address.ts';
import { parseIp } from '../../model/address.ts';
import type { Family } from '../names.ts';

/** An address as a text of 32 or 128 zeros and ones. */
export function bitsOf(ip: Ip): string {
  let bits = '';
  for (const byte of ipaddr.parse(ip).toByteArray()) bits += byte.toString(2).padStart(8, '0');
  return bits;
}

/** How many bits two addresses have in common from the left. */
export function commonPrefix(a: string, b: string): number {
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  return at;
}

/** The network that the first `width` bits name: `240.16.0.0/12`. */
export function networkText(bits: string, width: number, family: Family): string {
  const size = family === 'ipv4' ? 32 : 128;
  const padded = bits.slice(0, width).padEnd(size, '0');
  const bytes: number[] = [];
  for (let at = 0; at < size; at += 8) bytes.push(Number.parseInt(padded.slice(at, at + 8), 2));
  return `${parseIp(ipaddr.fromByteArray(bytes).toString())}/${width}`;
}
