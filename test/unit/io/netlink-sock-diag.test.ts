import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { findAttribute } from '../../../src/io/netlink.ts';
import { decodeOwner, SockDiag, type SocketOwner } from '../../../src/io/netlink-sock-diag.ts';
import type { Endpoint, Ip } from '../../../src/model/address.ts';

const OTHER_USER = 12_345;

const opened: { close(): void }[] = [];
afterEach(() => {
  for (const one of opened.splice(0)) one.close();
});

function diag(): SockDiag {
  const made = new SockDiag();
  opened.push(made);
  return made;
}

const end = (ip: string, port: number): Endpoint => ({ ip: ip as Ip, port });

async function listen(host: string): Promise<{ readonly server: Server; readonly port: number }> {
  const server = createServer({ allowHalfOpen: true }).listen(0, host);
  await once(server, 'listening');
  opened.push({ close: () => server.close() });
  return { server, port: (server.address() as { port: number }).port };
}

/** A caller of another user, and the server's side of its connection. */
async function python(
  server: Server,
  script: string,
): Promise<{ readonly child: ChildProcess; readonly socket: Socket }> {
  const child = spawn('/usr/bin/python3', ['-c', `import socket, sys\n${script}\nsys.stdin.read()`], {
    uid: OTHER_USER,
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  const [socket] = (await once(server, 'connection')) as [Socket];
  socket.on('error', () => {});
  opened.push({
    close() {
      socket.destroy();
      child.stdin?.destroy();
      child.kill('SIGKILL');
    },
  });
  return { child, socket };
}

describe('asking the kernel', () => {
  test.each(['127.0.0.1', '::1'])('finds the owner of a connection to %s', async (ip) => {
    const { server, port } = await listen(ip);
    const family = ip.includes(':') ? 'AF_INET6' : 'AF_INET';
    const script = `s = socket.socket(socket.${family})\ns.connect(('${ip}', ${port}))`;
    const { socket } = await python(server, script);
    const owner = diag().owner(end(ip, socket.remotePort!), end(ip, port));
    expect(owner).toMatchObject({ uid: OTHER_USER });
    expect((owner as SocketOwner).cgroup).toBeGreaterThan(0);
  });

  test('IPv4 ends find the socket of a program that speaks IPv4 over IPv6', async () => {
    const { server, port } = await listen('127.0.0.1');
    const script = `s = socket.socket(socket.AF_INET6)\ns.connect(('::ffff:127.0.0.1', ${port}))`;
    const { socket } = await python(server, script);
    const owner = diag().owner(end('127.0.0.1', socket.remotePort!), end('127.0.0.1', port));
    expect(owner).toMatchObject({ uid: OTHER_USER });
  });

  test('a caller that has written and closed is nobody, not root', async () => {
    const { server, port } = await listen('127.0.0.1');
    const script = `s = socket.create_connection(('127.0.0.1', ${port}))\ns.send(b'x')\ns.close()`;
    const { socket } = await python(server, script);
    socket.resume();
    await once(socket, 'end');
    expect(diag().owner(end('127.0.0.1', socket.remotePort!), end('127.0.0.1', port))).toBe('nobody');
  });

  test('a listener on the port of a connection that is not there is nobody', async () => {
    const { port } = await listen('127.0.0.1');
    expect(diag().owner(end('127.0.0.1', port), end('127.0.0.1', 9))).toBe('absent');
  });

  test('what does not exist, or mixes families, is nobody, and the next answer is right', async () => {
    const { port } = await listen('127.0.0.1');
    const client = connect(port, '127.0.0.1');
    await once(client, 'connect');
    opened.push({ close: () => client.destroy() });
    const asked = diag();
    for (let i = 0; i < 100; i++) {
      expect(asked.owner(end('127.0.0.1', 1), end('127.0.0.1', 2))).toBe('absent');
      expect(asked.owner(end('127.0.0.1', 1), end('::1', 2))).toBe('absent');
      expect(asked.owner(end('127.0.0.1', client.localPort!), end('127.0.0.1', port))).toMatchObject({
        uid: process.getuid!(),
      });
    }
  });
});

describe('an answer', () => {
  /** A real answer of Linux 6.18: sequence 0, uid 4242, inode 122685, attributes 8, 15, 21 (cgroup 2^32 + 7), 22. */
  const real = Buffer.from(
    '7c00000014000000000000005960000002010000ec0a94ff7f0000010000000000000000000000007f00000100000000' +
      '0000000000000000000000001710000000000000000000000000000000000000921000003ddf01000500080000000000' +
      '08000f00000000000c00150007000000010000000600160052000000',
    'hex',
  );
  const view = () => {
    const bytes = new Uint8Array(new ArrayBuffer(real.length));
    bytes.set(real);
    return new DataView(bytes.buffer);
  };
  const owner = () => ({ uid: -1, cgroup: -1 });

  test('is read', () => {
    const found = owner();
    expect(decodeOwner(view(), real.length, 0, found)).toBe('owner');
    expect(found).toEqual({ uid: 4242, cgroup: 2 ** 32 + 7 });
  });

  test('of another question is stale', () => {
    expect(decodeOwner(view(), real.length, 1, owner())).toBe('stale');
  });

  test('without a cgroup (before Linux 5.8) still names the user', () => {
    const found = owner();
    expect(decodeOwner(view(), 16 + 72, 0, found)).toBe('owner');
    expect(found).toEqual({ uid: 4242, cgroup: 0 });
  });

  test.each([
    ['a listener', 'absent', (v: DataView) => v.setUint8(17, 10)],
    ['no inode', 'nobody', (v: DataView) => v.setUint32(16 + 68, 0)],
    ['an error', 'absent', (v: DataView) => v.setUint16(4, 2, true)],
    ['another type', 'absent', (v: DataView) => v.setUint16(4, 3, true)],
  ])('with %s is %s', (_, outcome, change) => {
    const message = view();
    change(message);
    expect(decodeOwner(message, real.length, 0, owner())).toBe(outcome);
  });

  test('that is cut off anywhere is read as far as it goes', () => {
    for (let length = 0; length < real.length; length++) {
      const outcome = decodeOwner(view(), length, 0, owner());
      expect(outcome).toBe(length < 16 + 72 ? 'absent' : 'owner');
    }
  });

  test('lengths of attributes that lie lead nowhere', () => {
    const message = view();
    message.setUint16(16 + 72, 3, true);
    expect(findAttribute(message, 16 + 72, real.length, 21, 8)).toBe(-1);
    message.setUint16(16 + 72, 60_000, true);
    expect(findAttribute(message, 16 + 72, real.length, 21, 8)).toBe(-1);
  });
});
