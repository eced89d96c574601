import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { assign } from '../../../src/daemon/succession/held-listeners.ts';
import type { ListenerDescription } from '../../../src/daemon/succession/listeners.ts';
import { type BoundSocket, boundSocket } from '../../../src/io/bound-socket.ts';
import { closeDescriptor } from '../../../src/io/descriptors.ts';
import { createListeningSocket } from '../../../src/io/listener.ts';
import { createSocketPair } from '../../../src/io/socketpair.ts';
import type { Ip } from '../../../src/model/address.ts';

const at = (kind: ListenerDescription['kind'], ip: string, port: number): ListenerDescription => ({
  ...{ kind, port },
  ip: ip as Ip,
});
const stream = (ip: string, port: number): BoundSocket => ({ type: 'stream', ip: ip as Ip, port });
const datagram = (ip: string, port: number): BoundSocket => ({ type: 'datagram', ip: ip as Ip, port });

const wanted = [
  at('capture', '127.0.0.1', 15_001),
  at('capture', '::1', 15_001),
  at('dns-udp', '127.0.0.1', 15_053),
  at('dns-tcp', '127.0.0.1', 15_053),
  at('tunnel', '::', 15_008),
];

function given(sockets: readonly (readonly [string, BoundSocket | undefined])[]) {
  const offered = sockets.map(([name], i) => ({ name, fd: 10 + i }));
  return assign(wanted, offered, (fd) => sockets[fd - 10]![1]);
}

test('without an offer everything is opened', () => {
  expect(given([])).toEqual({ taken: [], missing: wanted, refused: [] });
});

test('what was kept is taken by its address and type, whatever its name', () => {
  const { taken, missing, refused } = given([
    ['dns-udp-0', datagram('127.0.0.1', 15_053)],
    ['dns-tcp-0', stream('127.0.0.1', 15_053)],
    ['tunnel-0', stream('::', 15_008)],
    ['capture-7', stream('::1', 15_001)],
  ]);
  expect(taken.map(({ kind, ip, fd, name }) => [kind, ip, fd, name])).toEqual([
    ['dns-udp', '127.0.0.1', 10, 'dns-udp-0'],
    ['dns-tcp', '127.0.0.1', 11, 'dns-tcp-0'],
    ['tunnel', '::', 12, 'tunnel-0'],
    ['capture', '::1', 13, 'capture-7'],
  ]);
  expect(missing).toEqual([wanted[0]]);
  expect(refused).toEqual([]);
});

test('a socket unit may listen for tunnels where the operator wants, when it is named so', () => {
  const named = given([['tunnel', stream('192.0.2.1', 15_008)]]);
  expect(named.taken).toMatchObject([{ kind: 'tunnel', ip: '192.0.2.1' }]);
  expect(named.missing).not.toContain(wanted[4]);
  const other = given([['web.socket', stream('192.0.2.1', 15_008)]]);
  expect(other.refused).toEqual([{ name: 'web.socket', fd: 10 }]);
  expect(given([['tunnel', stream('192.0.2.1', 15_009)]]).refused).toHaveLength(1);
});

test('what is not wanted, is no listener, or is there twice is refused', () => {
  const { taken, refused } = given([
    ['capture-0', stream('127.0.0.1', 15_002)],
    ['capture-1', undefined],
    ['capture-2', datagram('127.0.0.1', 15_001)],
    ['capture-3', stream('127.0.0.1', 15_001)],
    ['capture-4', stream('127.0.0.1', 15_001)],
  ]);
  expect(taken.map(({ name }) => name)).toEqual(['capture-3']);
  expect(refused.map(({ name }) => name)).toEqual(['capture-0', 'capture-1', 'capture-2', 'capture-4']);
});

test('a descriptor is asked what it is', async () => {
  const ip = '127.0.0.1' as Ip;
  const fd = createListeningSocket({ ip, port: 0, backlog: 1 });
  const bound = boundSocket(fd);
  expect(bound).toMatchObject({ type: 'stream', ip });
  expect(bound!.port).toBeGreaterThan(0);
  const taken = createServer();
  await expect(
    new Promise((_, reject) => taken.once('error', reject).listen(bound!.port, ip)),
  ).rejects.toThrow(/EADDRINUSE/);
  closeDescriptor(fd);
  const pair = createSocketPair();
  expect(boundSocket(pair[0])).toBeUndefined();
  for (const end of pair) closeDescriptor(end);
  expect(boundSocket(9_999)).toBeUndefined();
});
