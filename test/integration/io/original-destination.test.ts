import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createListeningSocket, TcpListener } from '../../../src/io/listener.ts';
import { type Interception, interceptionOf } from '../../../src/io/original-destination.ts';
import { Poller } from '../../../src/io/poller.ts';
import { TcpChannel } from '../../../src/io/socket.ts';
import { parseEndpoint } from '../../../src/model/address.ts';

const NAMESPACE = `mnio-od-${process.pid}`;
const PORT = 15001;
const CLONE_NEWNET = 0x40000000;
// A thread's sockets belong to the namespace that it is in: the main thread goes in, and comes back at the end.
const setns = koffi.load('libc.so.6').func('int setns(int, int)') as (fd: number, type: number) => number;
const run = (command: string) => execFileSync('sh', ['-ec', command], { stdio: 'pipe' });

function enter(path: string): void {
  const fd = openSync(path, 'r');
  const result = setns(fd, CLONE_NEWNET);
  closeSync(fd);
  if (result < 0) throw new Error(`setns ${path}: errno ${koffi.errno()}`);
}

describe('original destination', () => {
  let poller: Poller;
  let listener: TcpListener;
  let home = -1;
  let arrived: ((what: Interception) => void) | undefined;

  beforeAll(() => {
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
    enter(`/run/netns/${NAMESPACE}`);
    poller = new Poller();
    const fd = createListeningSocket({ ip: '::' as never, port: PORT, backlog: 16 });
    listener = new TcpListener(poller, fd, {
      acceptBatch: 16,
      onConnection(channel) {
        arrived?.(interceptionOf(channel, PORT));
        channel.reset();
      },
    });
  });
  afterAll(() => {
    listener.close();
    poller.close();
    setns(home, CLONE_NEWNET);
    closeSync(home);
    run(`ip netns del ${NAMESPACE}`);
  });

  const connectTo = (text: string) =>
    new Promise<Interception>((resolve) => {
      arrived = resolve;
      TcpChannel.connect(poller, parseEndpoint(text)!, { timeoutMs: 3000 }).resume();
    });

  test.each(['10.99.1.2:80', '10.99.255.254:65535', '[fd99::1:2]:80', '[fd99::9]:6379', `10.99.0.1:${PORT}`])(
    '%s is recovered',
    async (text) => {
      expect(await connectTo(text)).toEqual({ kind: 'redirected', destination: parseEndpoint(text) });
    },
  );
  test.each([`127.0.0.1:${PORT}`, `[::1]:${PORT}`, `127.0.0.5:${PORT}`])(
    '%s, the listener itself, is direct',
    async (text) => {
      expect(await connectTo(text)).toEqual({ kind: 'direct' });
    },
  );
});
