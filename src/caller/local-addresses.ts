import { type Ip, parseIp } from '../model/address.ts';

/** A container has a handful; who has more is known by the first ones. */
const MOST_ADDRESSES = 64;

/**
 * The addresses of a network namespace, out of its `fib_trie`: in the local table each own address stands as a leaf
 * (`|-- 172.17.0.2`) followed by `/32 host LOCAL`. Both tables list them, so each is named once. Loopback is left out.
 */
export function localIpv4(fibTrie: string): readonly Ip[] {
  const found = new Set<Ip>();
  let leaf = '';
  for (const line of fibTrie.split('\n')) {
    const text = line.trim();
    if (text.startsWith('|-- ')) leaf = text.slice(4);
    else if (text === '/32 host LOCAL') add(found, leaf);
  }
  return [...found];
}

/**
 * The same out of `if_inet6`: 32 digits of the address, interface index, prefix length, scope (00 is global, all
 * hexadecimal), flags, name. Link-local ones say nothing outside of their link and are left out.
 */
export function localIpv6(ifInet6: string): readonly Ip[] {
  const found = new Set<Ip>();
  for (const line of ifInet6.split('\n')) {
    const match = /^([0-9a-f]{32}) [0-9a-f]+ [0-9a-f]+ 00 /.exec(line);
    if (match !== null) add(found, match[1]!.replace(/(.{4})(?=.)/g, '$1:'));
  }
  return [...found];
}

function add(found: Set<Ip>, text: string): void {
  const ip = parseIp(text);
  if (ip !== undefined && !ip.startsWith('127.') && found.size < MOST_ADDRESSES) found.add(ip);
}
