import { expect, test } from 'vitest';
import { localIpv4, localIpv6 } from '../../../src/caller/local-addresses.ts';

/** /proc/PID/net/fib_trie of a docker container (Linux 6.18). */
const FIB_TRIE = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 172.17.0.0/16 2 0 2
        +-- 172.17.0.0/30 2 0 2
           |-- 172.17.0.0
              /16 link UNICAST
           |-- 172.17.0.2
              /32 host LOCAL
        |-- 172.17.255.255
           /32 link BROADCAST
Local:
  +-- 172.17.0.0/16 2 0 2
        |-- 172.17.0.2
           /32 host LOCAL
        |-- 172.17.255.255
           /32 link BROADCAST
`;

test('own IPv4 addresses, each once, without loopback, networks and broadcast', () => {
  expect(localIpv4(FIB_TRIE)).toEqual(['172.17.0.2']);
});

test('own IPv6 addresses without loopback and link-local ones', () => {
  const text = `fd820001000000000000000000000005 02 40 00 80     eth0
fe800000000000000042acfffe110002 02 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
`;
  expect(localIpv6(text)).toEqual(['fd82:1::5']);
});

test('anything else has none', () => {
  for (const text of [
    '',
    '\n\n',
    '|-- \n/32 host LOCAL',
    '|-- 1.2.3\n/32 host LOCAL',
    'x'.repeat(1000),
    FIB_TRIE.slice(0, 60),
  ]) {
    expect(localIpv4(text)).toEqual([]);
    expect(localIpv6(text)).toEqual([]);
  }
});

test('no more than a container can need', () => {
  const lines = Array.from({ length: 500 }, (_, i) => `|-- 10.0.${i >> 8}.${i & 255}\n/32 host LOCAL`);
  expect(localIpv4(lines.join('\n'))).toHaveLength(64);
});
