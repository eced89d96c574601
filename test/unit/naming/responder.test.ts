import { createSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { connect } from 'node:net';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createDatagramSocket, duplicateDescriptor } from '../../../src/io/datagram.ts';
import { closeDescriptor } from '../../../src/io/descriptors.ts';
import { createListeningSocket } from '../../../src/io/listener.ts';
import type { Ip } from '../../../src/model/address.ts';
import { NameResponder } from '../../../src/naming/responder.ts';
import { waitFor } from '../../support/process.ts';
import { question, readAnswer } from './questions.ts';
import { nameSpace } from './sample-names.ts';

const IP = '127.0.0.1' as Ip;
const names = nameSpace();
const answered: string[] = [];
const errors: Error[] = [];
const open: NameResponder[] = [];
let port = 0;
let shared: readonly { readonly kind: string; readonly ip: Ip; readonly fd: number }[] = [];

function responder(): NameResponder {
  const made = new NameResponder({
    names: () => names,
    answered: (transport, code) => answered.push(`${transport} ${code}`),
    failed: (error) => errors.push(error),
  });
  open.push(made);
  made.serve(shared.map(({ kind, ip, fd }) => ({ kind, ip, fd: duplicateDescriptor(fd) })));
  return made;
}

/** One port for both transports, as the agent has it. */
function bindBoth(): void {
  for (let tries = 0; ; tries++) {
    port = 20_000 + Math.floor(Math.random() * 10_000);
    const bound: number[] = [];
    try {
      bound.push(createDatagramSocket({ ip: IP, port }));
      bound.push(createListeningSocket({ ip: IP, port, backlog: 16 }));
      shared = [
        { kind: 'dns-udp', ip: IP, fd: bound[0]! },
        { kind: 'dns-tcp', ip: IP, fd: bound[1]! },
        { kind: 'tunnel', ip: IP, fd: bound[1]! },
      ];
      return;
    } catch (error) {
      for (const fd of bound) closeDescriptor(fd);
      if (tries === 20) throw error;
    }
  }
}

beforeEach(() => {
  answered.length = errors.length = 0;
  bindBoth();
});
afterEach(() => {
  for (const one of open.splice(0)) one.close();
  closeDescriptor(shared[0]!.fd);
  closeDescriptor(shared[1]!.fd);
  expect(errors).toEqual([]);
});

function resolver(): Resolver {
  const made = new Resolver({ timeout: 2000, tries: 1 });
  made.setServers([`127.0.0.1:${port}`]);
  return made;
}

/** What a connection receives until it is closed, or until enough has come. */
async function receive(bytes: Buffer, enough: number): Promise<Buffer> {
  const socket = connect({ host: IP, port });
  socket.write(bytes);
  let got = Buffer.alloc(0);
  try {
    for await (const chunk of socket) {
      got = Buffer.concat([got, chunk as Buffer]);
      if (got.length >= enough) break;
    }
  } catch {
    // reset: what came before counts
  }
  socket.destroy();
  return got;
}

const framed = (message: Buffer) =>
  Buffer.concat([Buffer.from([message.length >> 8, message.length & 0xff]), message]);

it('answers a resolver that nobody here wrote', async () => {
  responder();
  expect(await resolver().resolve4('orders.mesh', { ttl: true })).toEqual([{ address: '240.1.2.3', ttl: 5 }]);
  expect(await resolver().resolve6('orders.mesh')).toEqual(['fd6d:6573:6800::7']);
  expect(await resolver().resolveSrv('_http._tcp.orders.mesh')).toMatchObject([
    { name: 'orders.mesh', port: 80 },
    { name: 'orders.mesh', port: 8080 },
  ]);
  expect(await resolver().reverse('240.1.2.3')).toEqual(['orders.mesh']);
  await expect(resolver().resolve4('nobody.mesh')).rejects.toMatchObject({ code: 'ENOTFOUND' });
  await expect(resolver().resolve6('many.mesh')).rejects.toMatchObject({ code: 'ENODATA' });
  await expect(resolver().resolve4('example.test')).rejects.toMatchObject({ code: 'EREFUSED' });
  // More than a datagram holds: asked for again over TCP.
  expect(await resolver().resolveSrv('many.mesh')).toHaveLength(64);
  expect(new Set(answered)).toEqual(new Set(['udp 0', 'udp 3', 'udp 5', 'tcp 0']));
});

it('shares its sockets: another answers where one has gone', async () => {
  const first = responder();
  const second = responder();
  await resolver().resolve4('orders.mesh');
  first.close();
  expect(first.serving).toBe(false);
  for (let i = 0; i < 20; i++) await resolver().resolve4('orders.mesh');
  expect(second.serving).toBe(true);
  second.close();
  second.serve(shared.map(({ kind, ip, fd }) => ({ kind, ip, fd: duplicateDescriptor(fd) })));
  expect(await resolver().resolve4('orders.mesh')).toEqual(['240.1.2.3']);
});

it('lets nobody else bind its address', async () => {
  responder();
  const thief = createSocket({ type: 'udp4', reuseAddr: true });
  await expect(
    new Promise((resolve, reject) => {
      thief.on('error', reject);
      thief.bind(port, IP, () => resolve(undefined));
    }),
  ).rejects.toMatchObject({ code: 'EADDRINUSE' });
  thief.close();
});

it('takes several questions on one connection, in any pieces', async () => {
  responder();
  const asked = [1, 28, 33].map((type, id) => framed(question('orders.mesh', type, { id })));
  const sizes = [29 + 16, 29 + 28, 29 + 2 * (12 + 6 + 13) + 16 + 28];
  const enough = sizes.reduce((sum, size) => sum + 2 + size, 0);
  const got = await receive(Buffer.concat(asked), enough);
  expect(got).toHaveLength(enough);
  let at = 0;
  for (const [id, size] of sizes.entries()) {
    expect(got.readUInt16BE(at)).toBe(size);
    expect(readAnswer(got.subarray(at + 2, at + 2 + size))).toMatchObject({ id, code: 0 });
    at += 2 + size;
  }
});

it('closes a connection that announces too much', async () => {
  responder();
  const got = await receive(
    Buffer.concat([framed(question('orders.mesh', 1)), Buffer.from([0xff, 0xff])]),
    1e9,
  );
  expect(got).toHaveLength(2 + 29 + 16);
});

it('does not listen to who asks and asks and reads nothing', async () => {
  responder();
  const asked = framed(question('many.mesh', 33));
  const some = Buffer.concat(Array.from({ length: 1_000 }, () => asked));
  const socket = connect({ host: IP, port }).on('error', () => {});
  socket.pause();
  // Until the kernel's own buffers are full in both directions, and this end's as well.
  let before = -1;
  await waitFor('nothing is answered any more', async () => {
    while (socket.writableLength < some.length) socket.write(some);
    const now = answered.length;
    const still = now === before && now > 0;
    before = now;
    await new Promise((resolve) => setTimeout(resolve, 100));
    return still && answered.length === now;
  });
  const { arrayBuffers } = process.memoryUsage();
  expect(arrayBuffers).toBeLessThan(4 * 1024 * 1024);
  // Nobody else has to wait for that.
  expect(await resolver().resolveSrv('many.mesh')).toHaveLength(64);
  socket.destroy();
});

it('bounds its connections', async () => {
  responder();
  const sockets = Array.from({ length: 80 }, () => connect({ host: IP, port }).on('error', () => {}));
  const closed = await Promise.all(
    sockets.map(
      (socket) =>
        new Promise<boolean>((resolve) => {
          socket.on('close', () => resolve(true));
          socket.on('data', () => resolve(false));
          socket.write(framed(question('orders.mesh', 1)));
        }),
    ),
  );
  expect(closed.filter((one) => one)).toHaveLength(16);
  for (const socket of sockets) socket.destroy();
});

it('does without a descriptor that is none of its kind', async () => {
  const made = new NameResponder({
    names: () => names,
    answered: () => {},
    failed: (error) => errors.push(error),
  });
  made.serve([{ kind: 'dns-udp', ip: IP, fd: duplicateDescriptor(shared[1]!.fd) }]);
  expect(made.serving).toBe(false);
  expect(errors.splice(0)).toHaveLength(1);
});
