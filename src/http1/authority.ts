import { parseIp } from '../model/address.ts';
import { HOST } from './characters.ts';

const MAX_PORT = 65535;
const MAX_PORT_DIGITS = 5;

/**
 * True when `text` from `from` to `to` is `host`, `host:port` or `[ipv6]:port` (RFC 9110, 4.2.1, and RFC 3986, 3.2.2), with
 * no user information, a host that is not empty and a port, if any, of 1 to 65535.
 */
export function isAuthority(text: string, from: number, to: number, portRequired: boolean): boolean {
  let hostEnd: number;
  if (text.charCodeAt(from) === 0x5b && from < to) {
    const bracket = text.indexOf(']', from);
    if (bracket < 0 || bracket >= to) return false;
    const address = text.slice(from + 1, bracket);
    if (!address.includes(':') || parseIp(address) === undefined) return false;
    hostEnd = bracket + 1;
  } else {
    hostEnd = from;
    while (hostEnd < to && HOST[text.charCodeAt(hostEnd)] === 1) hostEnd++;
    if (hostEnd === from) return false;
  }
  if (hostEnd === to) return !portRequired;
  return text.charCodeAt(hostEnd) === 0x3a && isPort(text, hostEnd + 1, to);
}

function isPort(text: string, from: number, to: number): boolean {
  if (from >= to || to - from > MAX_PORT_DIGITS) return false;
  let port = 0;
  for (let at = from; at < to; at++) {
    const digit = text.charCodeAt(at) - 0x30;
    if (digit < 0 || digit > 9) return false;
    port = port * 10 + digit;
  }
  return port >= 1 && port <= MAX_PORT;
}
