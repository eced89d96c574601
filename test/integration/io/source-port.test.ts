import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import koffi from 'koffi';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Conntrack } from '../../../src/io/netlink-conntrack.ts';
import { SockDiag } from '../../../src/io/netlink-sock-diag.ts';
import { type Endpoint, type Ip, parseIp } from '../../../src/model/address.ts';

/*
 * Two connections from one port to different destinations, both redirected to one listener: the kernel gives the second
 * one another port there, under which no socket of the caller is found.
 */

const NAMESPACE = `mnio-sp-${process.pid}`;
const PORT = 15001;
const CLONE_NEWNET = 0x40000000;
const setns = koffi.load('libc.so.6').func('int setns(int, int)') as (fd: number, type: number) => number;
const run = (command: string) => execFileSync('sh', ['-ec', command], { stdio: 'pipe' });

let home = -1;
let server: Server;
let conntrack: Conntrack;
let sockets: SockDiag;
const held: Socket[] = [];

beforeAll(async () => {
  run(`
    ip netns add ${NAMESPACE}
    inside="ip netns exec ${NAMESPACE}"
    $inside ip link set lo up
    $inside ip route add 10.99.0.0/16 dev lo
    $inside ip -6 route add fd99::/64 dev lo
    $inside iptables -t nat -A OUTPUT -p tcp --syn -d 10.99.0.0/16 -j REDIRECT --to-ports ${PORT}
    $inside ip6tables -t nat -A OUTPUT -p tcp --syn -d fd99::/64 -j REDIRECT --to-ports ${PORT}
  `);
  home = openSync('/proc/self/ns/net', 'r');
  const inside = openSync(`/run/netns/${NAMESPACE}`, 'r');
  setns(inside, CLONE_NEWNET);
  closeSync(inside);
  conntrack = new Conntrack();
  sockets = new SockDiag();
  server = createServer().listen(PORT, '::');
  await once(server, 'listening');
});
afterAll(() => {
  for (const socket of held) socket.destroy();
  server.close();
  conntrack.close();
  sockets.close();
  setns(home, CLONE_NEWNET);
  closeSync(home);
  run(`ip netns del ${NAMESPACE}`);
});

const end = (ip: string | undefined, port: number | undefined): Endpoint => ({
  ip: parseIp(ip!)!,
  port: port!,
});

/** A connection from a port of the caller's choice, as the listener sees it: its own end, then the caller's. */
async function redirected(host: string, localPort: number): Promise<readonly [Endpoint, Endpoint]> {
  const arrived = once(server, 'connection') as Promise<[Socket]>;
  const client = connect({ host, port: 80, localPort });
  await once(client, 'connect');
  const [accepted] = await arrived;
  held.push(client, accepted);
  return [end(accepted.localAddress, accepted.localPort), end(accepted.remoteAddress, accepted.remotePort)];
}

test.each([
  ['IPv4', '10.99.0.1', '10.99.0.2', 40_000],
  ['IPv6', 'fd99::1', 'fd99::2', 41_000],
])('%s: the port that the caller really has leads to its owner', async (_, one, other, port) => {
  const [listener, first] = await redirected(one, port);
  expect(first.port).toBe(port);
  expect(conntrack.sourcePort(listener, first)).toBe(port);

  const [, second] = await redirected(other, port);
  expect(second.port).not.toBe(port);
  const destination: Endpoint = { ip: other as Ip, port: 80 };
  expect(sockets.owner(second, destination)).toBe('absent');
  const real = conntrack.sourcePort(listener, second);
  expect(real).toBe(port);
  expect(sockets.owner({ ...second, port: real! }, destination)).toMatchObject({ uid: process.getuid!() });
});

test('a connection that nobody has', () => {
  const nowhere: Endpoint = { ip: '127.0.0.1' as Ip, port: 1 };
  expect(conntrack.sourcePort(nowhere, { ...nowhere, port: 2 })).toBeUndefined();
  expect(conntrack.sourcePort(nowhere, { ip: '::1' as Ip, port: 2 })).toBeUndefined();
});
