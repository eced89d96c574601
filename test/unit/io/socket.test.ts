import { once } from 'node:events';
import { Socket } from 'node:net';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import type { SocketWaiter } from '../../../src/io/connecting.ts';
import { AF_INET, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET } from '../../../src/io/constants.ts';
import { closeDescriptor } from '../../../src/io/descriptors.ts';
import * as libc from '../../../src/io/libc.ts';
import { createListeningSocket, TcpListener } from '../../../src/io/listener.ts';
import { Poller } from '../../../src/io/poller.ts';
import { TcpChannel } from '../../../src/io/socket.ts';
import { localEndpointOf, setIntegerOption } from '../../../src/io/socket-options.ts';
import { createSocketPair } from '../../../src/io/socketpair.ts';
import type { Ip } from '../../../src/model/address.ts';
import { channelConformance, patternBytes, Recorder } from '../../conformance/channel.ts';
import { socketOption } from './socket-option.ts';

/** socket(7) */
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const LOOPBACK = '127.0.0.1' as Ip;
const poller = new Poller();
afterAll(() => poller.close());

function start(ip: Ip) {
  const fd = createListeningSocket({ ip, port: 0, backlog: 16 });
  const port = localEndpointOf(fd)!.port;
  let onConnection: (channel: TcpChannel) => void;
  const b = new Promise<TcpChannel>((resolve) => {
    onConnection = resolve;
  });
  const listener = new TcpListener(poller, fd, {
    acceptBatch: 16,
    onConnection: (channel) => onConnection(channel),
  });
  const a = TcpChannel.connect(poller, { ip, port }, { timeoutMs: 1000 });
  return { a, b, port, done: async () => listener.close() };
}

for (const ip of [LOOPBACK, '::1' as Ip]) {
  channelConformance(
    `TcpChannel over ${ip}`,
    async () => {
      const { a, b, done } = start(ip);
      return { a, b: await b, done };
    },
    () => start(ip),
  );
}

/** As {@link start}, with a socket that is made elsewhere and comes a little later. */
function startLate() {
  const fd = createListeningSocket({ ip: LOOPBACK, port: 0, backlog: 16 });
  const { port } = localEndpointOf(fd)!;
  let onConnection: (channel: TcpChannel) => void;
  const b = new Promise<TcpChannel>((resolve) => {
    onConnection = resolve;
  });
  const listener = new TcpListener(poller, fd, {
    acceptBatch: 16,
    onConnection: (channel) => onConnection(channel),
  });
  const socket = libc.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const a = TcpChannel.connectWith(poller, { ip: LOOPBACK, port }, { timeoutMs: 1000 }, (waiter) => {
    setTimeout(() => waiter.take(socket) || closeDescriptor(socket), 5);
  });
  return { a, b, port, done: async () => listener.close() };
}

channelConformance(
  'TcpChannel with a socket that comes later',
  async () => {
    const { a, b, done } = startLate();
    return { a, b: await b, done };
  },
  () => startLate(),
);

channelConformance('TcpChannel, the accepted side first', async () => {
  const { a, b, done } = start(LOOPBACK);
  return { a: await b, b: a, done };
});

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe('TcpChannel', () => {
  const cleanups: (() => void)[] = [];
  afterEach(() => {
    for (const cleanup of cleanups.splice(0)) cleanup();
  });
  const connected = async () => {
    const { a, b, done } = start(LOOPBACK);
    const near = new Recorder(a);
    const far = new Recorder(await b);
    await until('open', () => near.calls.length > 0);
    cleanups.push(() => {
      near.channel.reset();
      far.channel.reset();
      void done();
    });
    return { a, near, far, b: await b };
  };

  test('a socket that does not come in time, or comes to nobody', async () => {
    let waiter: SocketWaiter | undefined;
    const options = { timeoutMs: 50 };
    const make = () =>
      new Recorder(
        TcpChannel.connectWith(poller, { ip: LOOPBACK, port: 1 }, options, (one) => {
          waiter = one;
        }),
      );
    const late = make();
    late.channel.write(new Uint8Array(10));
    await until('late', () => late.closed);
    expect(late.closes[0]).toEqual({ reason: 'overload', delivered: false, detail: 'no socket in time' });
    expect(waiter!.take(0)).toBe(false);

    const gone = make();
    gone.channel.reset();
    expect(waiter!.take(0)).toBe(false);
    await until('gone', () => gone.closed);
    expect(gone.closes[0]).toMatchObject({ reason: 'local' });

    const refused = make();
    waiter!.fail('system', 'not to be had');
    await until('refused', () => refused.closed);
    expect(refused.closes[0]).toEqual({ reason: 'system', delivered: false, detail: 'not to be had' });
  });

  test('refused: told later, nothing delivered, with the reason', async () => {
    const fd = createListeningSocket({ ip: LOOPBACK, port: 0, backlog: 1 });
    const { port } = localEndpointOf(fd)!;
    closeDescriptor(fd);
    const recorder = new Recorder(TcpChannel.connect(poller, { ip: LOOPBACK, port }, { timeoutMs: 1000 }));
    recorder.channel.write(new Uint8Array(10));
    expect(recorder.closed).toBe(false);
    await until('closed', () => recorder.closed);
    expect(recorder.closes[0]).toEqual({
      reason: 'refused',
      delivered: false,
      detail: 'connect: ECONNREFUSED',
    });
    expect(poller.heldBytes).toBe(0);
  });

  test('no answer in time: timeout, with the descriptor freed', async () => {
    const fd = createListeningSocket({ ip: LOOPBACK, port: 0, backlog: 0 });
    const { port } = localEndpointOf(fd)!;
    const filler = new Recorder(TcpChannel.connect(poller, { ip: LOOPBACK, port }, { timeoutMs: 1000 }));
    await until('the queue is full', () => filler.calls.includes('open'));
    const recorder = new Recorder(TcpChannel.connect(poller, { ip: LOOPBACK, port }, { timeoutMs: 150 }));
    const from = performance.now();
    await until('closed', () => recorder.closed);
    expect(recorder.closes[0]).toMatchObject({ reason: 'timeout', delivered: false });
    expect(performance.now() - from).toBeGreaterThan(100);
    expect((recorder.channel as TcpChannel).fd).toBe(-1);
    filler.reset();
    closeDescriptor(fd);
  });

  test('delivered is false while nothing was written, true as soon as the kernel took a byte', async () => {
    const silent = await connected();
    silent.a.resume();
    silent.b.reset();
    await until('closed', () => silent.near.closed);
    expect(silent.near.closes[0]).toMatchObject({ reason: 'reset', delivered: false });
    const spoken = await connected();
    spoken.a.resume();
    spoken.near.write(new Uint8Array(1));
    spoken.b.reset();
    await until('closed', () => spoken.near.closed);
    expect(spoken.near.closes[0]).toMatchObject({ reason: 'reset', delivered: true });
  });

  test('an answer that was sent before the reset is still read', async () => {
    const { a, near, far, b } = await connected();
    // The far end answers early and closes with unread bytes: its kernel sends a reset behind the answer.
    near.write(new Uint8Array(1000));
    await new Promise((resolve) => setTimeout(resolve, 10));
    far.write(Buffer.from('413 too large'));
    closeDescriptor(b.detach()!);
    a.resume();
    await until('closed', () => near.closed);
    expect(Buffer.from(near.bytes()).toString()).toBe('413 too large');
    expect(near.reason).toBe('reset');
    expect(near.ended).toBe(false);
  });

  /** Runs `act` in a batch of ready descriptors, where small writes wait for the end of it. */
  const inBatch = async (pair: Awaited<ReturnType<typeof connected>>, act: () => void) => {
    const done = new Promise<void>((resolve) => {
      pair.near.onData = () => {
        pair.near.onData = undefined;
        act();
        resolve();
      };
    });
    pair.near.channel.resume();
    pair.far.channel.resume();
    pair.far.write(Uint8Array.of(1));
    await done;
  };

  test('small writes of one batch leave together at its end', async () => {
    const pair = await connected();
    pair.near.write(new Uint8Array(600)); // so that Nagle's rule is off
    const before = pair.a.bytesWritten;
    await inBatch(pair, () => {
      for (let i = 0; i < 3; i++) expect(pair.near.write(new Uint8Array(100).fill(i))).toBe(true);
      expect(pair.a.bytesWritten).toBe(before);
    });
    await until('arrived', () => pair.far.received === 900);
    expect(pair.a.bytesWritten).toBe(before + 300);
    expect(pair.far.bytes().subarray(600)).toEqual(
      Buffer.concat([0, 1, 2].map((value) => new Uint8Array(100).fill(value))),
    );
  });

  test('whatever follows a small write of the same batch follows it on the wire', async () => {
    const small = patternBytes(500, 1);
    const large = patternBytes(2 << 20, 2);
    const pair = await connected();
    setIntegerOption(pair.a.fd, SOL_SOCKET, SO_SNDBUF, 1);
    pair.near.write(new Uint8Array(600));
    await inBatch(pair, () => {
      pair.near.write(small);
      pair.near.write(large); // more than the kernel takes at once
      expect(pair.near.write(small)).toBe(false);
      pair.near.end_();
    });
    await until('ended', () => pair.far.ended);
    expect(Buffer.compare(pair.far.bytes().subarray(600), Buffer.concat([small, large, small]))).toBe(0);
  });

  test('what the kernel did not take at the end of a batch is kept, and no drain is told that nobody waits for', async () => {
    const pair = await connected();
    setIntegerOption(pair.a.fd, SOL_SOCKET, SO_SNDBUF, 1);
    setIntegerOption(pair.b.fd, SOL_SOCKET, SO_RCVBUF, 1);
    pair.near.write(new Uint8Array(600));
    let written = 600;
    await inBatch(pair, () => {
      pair.far.channel.pause();
      for (let i = 0; i < 16; i++, written += 4096) expect(pair.near.write(new Uint8Array(4096))).toBe(true);
    });
    await until('kept', () => pair.a.pendingBytes > 0);
    pair.far.channel.resume();
    await until('arrived', () => pair.far.received === written);
    expect(pair.near.drains).toBe(0);
    expect(poller.heldBytes).toBe(0);
  });

  test.each([
    ['end', (channel: TcpChannel) => channel.end()],
    ['reset', (channel: TcpChannel) => channel.reset()],
    ['detach', (channel: TcpChannel) => closeDescriptor(channel.detach()!)],
  ])('a small write goes out before %s in the same batch', async (_, over) => {
    const pair = await connected();
    pair.near.write(new Uint8Array(600));
    await until('arrived', () => {
      pair.far.channel.resume();
      return pair.far.received === 600;
    });
    await inBatch(pair, () => {
      pair.near.write(new Uint8Array(10));
      over(pair.a);
      expect(pair.a.bytesWritten).toBe(610);
    });
  });

  test('a write into a connection that is gone is a reset, not an end', async () => {
    const { a, near, b } = await connected();
    near.write(new Uint8Array(10));
    await new Promise((resolve) => setTimeout(resolve, 10));
    closeDescriptor(b.detach()!);
    // Within the same turn, before any event could be seen: EPIPE is met by the writer.
    for (let i = 0; i < 3; i++) near.write(new Uint8Array(10));
    a.resume();
    await until('closed', () => near.closed);
    expect(near.reason).toBe('reset');
    expect(near.ended).toBe(false);
    expect(near.violations).toEqual([]);
  });

  test('the descriptor can be handed over to a net.Socket', async () => {
    const { near, far, a, b } = await connected();
    far.channel.resume();
    near.write(Buffer.from('one '));
    await until('first', () => far.received === 4);
    const fd = a.detach();
    expect(a.detach()).toBeUndefined();
    expect(a.fd).toBe(-1);
    const socket = new Socket({ fd: fd! });
    socket.write('two');
    b.write(Buffer.from('answer'));
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    expect(chunk.toString()).toBe('answer');
    await until('second', () => far.received === 7);
    socket.destroy();
    expect(near.calls).toEqual(['open']);
  });

  test('a channel with pending bytes is not handed over', async () => {
    const { near, a } = await connected();
    near.write(new Uint8Array(16 << 20));
    expect(a.pendingBytes).toBeGreaterThan(0);
    expect(a.detach()).toBeUndefined();
  });

  test('urgent bytes in the stream at once, no delay from the second write on, keepalive once it has lived', async () => {
    const { b, port, done } = start(LOOPBACK);
    const keepalive = { idleMs: 2000 };
    const a = TcpChannel.connect(poller, { ip: LOOPBACK, port }, { timeoutMs: 1000, keepalive });
    const near = new Recorder(a);
    cleanups.push(() => {
      a.reset();
      void b.then((channel) => channel.reset());
      void done();
    });
    await until('open', () => near.calls.length > 0);
    const option = (level: number, name: number) => socketOption(a.fd, level, name);
    expect(option(1, 10)).not.toBe(0); // SO_OOBINLINE
    a.write(Buffer.from('first'));
    expect(option(6, 1)).toBe(0); // TCP_NODELAY
    a.write(Buffer.from('second'));
    expect(option(6, 1)).not.toBe(0);
    expect(option(1, 9)).toBe(0); // SO_KEEPALIVE
    await until('keepalive', () => option(1, 9) !== 0);
    const [idle, interval, probes] = [option(6, 4), option(6, 5), option(6, 6)];
    expect(idle).toBe(2);
    expect(interval! * probes!).toBeLessThan(30);
  });

  test('bytes that wait for more go out with it, be that bytes, the end, or the end of everything', async () => {
    for (const finish of ['write', 'end', 'close'] as const) {
      const { a, near, far } = await connected();
      a.resume();
      far.channel.resume();
      if (finish === 'close') {
        far.channel.end();
        await until('their end', () => near.ended);
      }
      a.write(Buffer.from('one'), true);
      if (finish === 'write') a.write(Buffer.from('two'));
      else a.end();
      await until(
        finish,
        () => far.received === (finish === 'write' ? 6 : 3) && far.ended === (finish !== 'write'),
      );
    }
  });

  test('tells with the bytes that the end is there already', async () => {
    const { a, near, b } = await connected();
    const told: (boolean | undefined)[] = [];
    const { data } = near;
    near.data = (bytes: Uint8Array, more?: boolean) => {
      told.push(more);
      data.call(near, bytes);
    };
    b.write(Buffer.from('answer'));
    b.end();
    await until('CLOSE_WAIT', () => (socketOption(a.fd, 6, 11) & 0xff) === 8);
    await new Promise((resolve) => setImmediate(resolve)); // the events of both segments have been handled
    a.resume();
    await until('ended', () => near.ended);
    expect(told).toEqual([true]);
    expect(near.received).toBe(6);
  });

  test('a first write of more than a segment goes out without delay', async () => {
    const { a } = await connected();
    a.write(Buffer.alloc(3000));
    expect(socketOption(a.fd, 6, 1)).not.toBe(0); // TCP_NODELAY
  });

  test('a descriptor that is given away has all its options', async () => {
    const { a } = await connected();
    const fd = a.detach()!;
    for (const [level, name] of [
      [6, 1], // TCP_NODELAY
      [1, 9], // SO_KEEPALIVE
      [1, 10], // SO_OOBINLINE
    ] as const) {
      expect(socketOption(fd, level, name)).not.toBe(0);
    }
    closeDescriptor(fd);
  });

  test('counts what went through', async () => {
    const { near, far, a, b } = await connected();
    far.channel.resume();
    near.write(new Uint8Array(5 << 20));
    near.end_();
    await until('end', () => far.ended);
    expect(a.bytesWritten).toBe(5 << 20);
    expect(b.bytesRead).toBe(5 << 20);
    expect(poller.heldBytes).toBe(0);
  });

  test('an owner that throws loses the connection, wherever it was called from', async () => {
    const before = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    const surfaced: unknown[] = [];
    process.on('uncaughtException', (error) => surfaced.push(error));
    try {
      for (const resumeLate of [false, true]) {
        const { near, far, a } = await connected();
        near.onData = () => {
          throw new Error('boom');
        };
        if (!resumeLate) a.resume();
        far.write(new Uint8Array(1));
        await new Promise((resolve) => setTimeout(resolve, 10));
        a.resume();
        far.channel.resume();
        await until('both closed', () => near.closed && far.closed);
        expect([near.reason, far.reason]).toEqual(['system', 'reset']);
      }
      await until('surfaced', () => surfaced.length === 2);
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const existing of before) process.on('uncaughtException', existing);
    }
  });

  test('a bulk transfer does not keep another connection of the batch waiting', async () => {
    const [bulkNear, bulkFar] = createSocketPair();
    const [pingNear, pingFar] = createSocketPair();
    const recorders = [bulkNear, bulkFar, pingNear, pingFar].map(
      (fd) => new Recorder(TcpChannel.adopt(poller, fd)),
    );
    const [source, sink, ping, pong] = recorders as [Recorder, Recorder, Recorder, Recorder];
    let poured = 0;
    source.onDrain = () => {
      while (poured < 64 << 20) {
        poured += 1 << 20;
        if (!source.channel.write(new Uint8Array(1 << 20))) return;
      }
    };
    let answered = 0;
    let pouredByThen = 0;
    pong.onData = (bytes) => void pong.channel.write(bytes);
    ping.onData = () => {
      if (++answered < 50) ping.channel.write(new Uint8Array(1));
      else pouredByThen = sink.received;
    };
    sink.chunks.push = () => 0; // not kept
    for (const recorder of recorders) recorder.channel.resume();
    source.onDrain();
    ping.channel.write(new Uint8Array(1));
    await until('pings answered', () => answered === 50);
    expect(pouredByThen).toBeLessThan(64 << 20);
    for (const recorder of recorders) recorder.reset();
    await until('closed', () => recorders.every((recorder) => recorder.closed));
  });
});
