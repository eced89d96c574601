import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ChannelClose } from '../../../src/io/channel.ts';
import { closeDescriptor } from '../../../src/io/descriptors.ts';
import * as libc from '../../../src/io/libc.ts';
import { createListeningSocket, TcpListener } from '../../../src/io/listener.ts';
import { Poller } from '../../../src/io/poller.ts';
import { TcpChannel } from '../../../src/io/socket.ts';
import { localEndpointOf } from '../../../src/io/socket-options.ts';
import type { Ip } from '../../../src/model/address.ts';
import { MeshError } from '../../../src/model/errors.ts';
import { socketOption } from './socket-option.ts';

const LOOPBACK = '127.0.0.1' as Ip;
const RLIMIT_NOFILE = 7;

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe('listening', () => {
  let poller: Poller;
  let listener: TcpListener | undefined;
  const accepted: TcpChannel[] = [];
  const clients: TcpChannel[] = [];
  beforeEach(() => {
    poller = new Poller();
  });
  afterEach(() => {
    for (const channel of [...accepted.splice(0), ...clients.splice(0)]) channel.reset();
    listener?.close();
    listener = undefined;
    poller.close();
  });

  const listen = (ip: Ip, onConnection?: (channel: TcpChannel) => void, acceptBatch = 64) => {
    const fd = createListeningSocket({ ip, port: 0, backlog: 128 });
    const port = localEndpointOf(fd)!.port;
    listener = new TcpListener(poller, fd, {
      acceptBatch,
      onConnection: onConnection ?? ((channel) => accepted.push(channel)),
    });
    return port;
  };
  const dial = (ip: Ip, port: number, localIp?: Ip) => {
    const seen: { open: boolean; close: ChannelClose | undefined } = { open: false, close: undefined };
    const channel = TcpChannel.connect(
      poller,
      { ip, port },
      localIp === undefined ? { timeoutMs: 3000 } : { timeoutMs: 3000, localIp },
    );
    channel.handler = {
      open() {
        seen.open = true;
      },
      data() {},
      end() {},
      drain() {},
      close(why) {
        seen.close = why;
      },
    };
    channel.resume();
    clients.push(channel);
    return { channel, seen };
  };

  test('a dual-stack listener takes both families; IPv4 shows as IPv4', async () => {
    const port = listen('::' as Ip);
    const four = dial(LOOPBACK, port, '127.0.0.9' as Ip);
    await until('the first', () => accepted.length === 1);
    const six = dial('::1' as Ip, port);
    await until('both', () => accepted.length === 2);
    expect(accepted[0]!.remoteEndpoint).toEqual(four.channel.localEndpoint);
    expect(accepted[0]!.remoteEndpoint!.ip).toBe('127.0.0.9');
    expect(accepted[0]!.localEndpoint).toEqual({ ip: '127.0.0.1', port });
    expect(accepted[1]!.remoteEndpoint).toEqual(six.channel.localEndpoint);
    expect(accepted[1]!.localEndpoint).toEqual({ ip: '::1', port });
    expect(four.channel.remoteEndpoint).toEqual({ ip: '127.0.0.1', port });
  });

  test('accepted connections inherit keepalive, no delay and urgent bytes in the stream', async () => {
    dial(LOOPBACK, listen(LOOPBACK));
    await until('accepted', () => accepted.length === 1);
    const option = (level: number, name: number) => socketOption(accepted[0]!.fd, level, name);
    expect(option(6, 1)).not.toBe(0); // TCP_NODELAY
    expect(option(1, 9)).not.toBe(0); // SO_KEEPALIVE
    expect(option(1, 10)).not.toBe(0); // SO_OOBINLINE
    const [idle, interval, probes] = [option(6, 4), option(6, 5), option(6, 6)];
    expect(idle).toBe(30);
    expect(idle! + interval! * probes!).toBeLessThan(60);
  });

  test('urgent bytes arrive in place, and nothing behind them is left waiting', async () => {
    const MSG_OOB = 1;
    const { channel } = dial(LOOPBACK, listen(LOOPBACK));
    await until('accepted', () => accepted.length === 1);
    let text = '';
    accepted[0]!.handler = {
      data(bytes) {
        text += Buffer.from(bytes).toString();
      },
      end() {},
      drain() {},
      close() {},
    };
    channel.write(Buffer.from('before-'));
    libc.send(channel.fd, Buffer.from('!'), 1, MSG_OOB);
    channel.write(Buffer.from('-after'));
    accepted[0]!.resume();
    await until('all', () => text === 'before-!-after');
  });

  test('paused, it leaves connections in the queue', async () => {
    const port = listen(LOOPBACK);
    listener!.pause();
    const { seen } = dial(LOOPBACK, port);
    await until('the kernel accepted', () => seen.open);
    expect(accepted).toHaveLength(0);
    listener!.resume();
    await until('accepted', () => accepted.length === 1);
  });

  test('takes no more than a batch at once, and forgets nobody', async () => {
    let most = 0;
    let inBatch = 0;
    const port = listen(
      LOOPBACK,
      (channel) => {
        accepted.push(channel);
        inBatch++;
        most = Math.max(most, inBatch);
        poller.afterBatch(() => {
          inBatch = 0;
        });
      },
      3,
    );
    for (let i = 0; i < 20; i++) dial(LOOPBACK, port);
    await until('all', () => accepted.length === 20);
    expect(most).toBeLessThanOrEqual(3);
  });

  test('an owner that throws loses this connection only', async () => {
    const before = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    const surfaced: unknown[] = [];
    process.on('uncaughtException', (error) => surfaced.push(error));
    try {
      let count = 0;
      const port = listen(LOOPBACK, (channel) => {
        if (count++ === 1) throw new Error('boom');
        accepted.push(channel);
      });
      const dialled = [dial(LOOPBACK, port), dial(LOOPBACK, port), dial(LOOPBACK, port)];
      await until('two accepted', () => accepted.length === 2);
      await until(
        'one reset',
        () => dialled.filter(({ seen }) => seen.close?.reason === 'reset').length === 1,
      );
      await until('surfaced', () => surfaced.length === 1);
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const existing of before) process.on('uncaughtException', existing);
    }
    expect(String(surfaced[0])).toBe('Error: boom');
  });

  test('out of descriptors, callers are reset at once and counted; then it goes on', async () => {
    const port = listen(LOOPBACK);
    // Callers first: they need descriptors of this process, too.
    listener!.pause();
    const waiting = Array.from({ length: 5 }, () => dial(LOOPBACK, port));
    await until('connected', () => waiting.every(({ seen }) => seen.open));
    const limits = new BigUint64Array(2);
    const bytes = new Uint8Array(limits.buffer);
    libc.prlimit(0, RLIMIT_NOFILE, null, bytes);
    const soft = limits[0]!;
    const lowest = libc.fcntl(0, 1030, 0);
    closeDescriptor(lowest);
    limits[0] = BigInt(lowest); // no free number below the limit
    libc.prlimit(0, RLIMIT_NOFILE, bytes, null);
    try {
      listener!.resume();
      await until('all refused', () => waiting.every(({ seen }) => seen.close?.reason === 'reset'));
    } finally {
      limits[0] = soft;
      libc.prlimit(0, RLIMIT_NOFILE, bytes, null);
    }
    expect(listener!.rejected).toBe(5);
    expect(listener!.accepted).toBe(0);
    const { seen } = dial(LOOPBACK, port);
    await until('served again', () => seen.open && accepted.length > 0);
  });

  test('without a descriptor, connect tells overload, later', async () => {
    const limits = new BigUint64Array(2);
    const bytes = new Uint8Array(limits.buffer);
    libc.prlimit(0, RLIMIT_NOFILE, null, bytes);
    const soft = limits[0]!;
    const lowest = libc.fcntl(0, 1030, 0);
    closeDescriptor(lowest);
    limits[0] = BigInt(lowest);
    libc.prlimit(0, RLIMIT_NOFILE, bytes, null);
    const { seen } = dial(LOOPBACK, 1);
    limits[0] = soft;
    libc.prlimit(0, RLIMIT_NOFILE, bytes, null);
    expect(seen.close).toBeUndefined();
    await until('closed', () => seen.close !== undefined);
    expect(seen.close).toMatchObject({ reason: 'overload', delivered: false });
    expect(seen.close!.detail).toContain('EMFILE');
  });

  test('a port that is taken is an error that names it', () => {
    const fd = createListeningSocket({ ip: LOOPBACK, port: 0, backlog: 1 });
    const { port } = localEndpointOf(fd)!;
    try {
      expect(() => createListeningSocket({ ip: LOOPBACK, port, backlog: 1 })).toThrow(MeshError);
      expect(() => createListeningSocket({ ip: LOOPBACK, port, backlog: 1 })).toThrow(
        `127.0.0.1:${port}: bind: EADDRINUSE`,
      );
    } finally {
      closeDescriptor(fd);
    }
  });

  test('freebind takes an address that the host does not have', () => {
    const ip = '192.0.2.77' as Ip;
    expect(() => createListeningSocket({ ip, port: 0, backlog: 1 })).toThrow('EADDRNOTAVAIL');
    closeDescriptor(createListeningSocket({ ip, port: 0, backlog: 1, freebind: true }));
  });

  test('v6only leaves IPv4 refused', async () => {
    const fd = createListeningSocket({ ip: '::' as Ip, port: 0, backlog: 1, v6only: true });
    const { port } = localEndpointOf(fd)!;
    const { seen } = dial(LOOPBACK, port);
    await until('refused', () => seen.close !== undefined);
    expect(seen.close).toMatchObject({ reason: 'refused', delivered: false });
    closeDescriptor(fd);
  });

  test('an address that is not ours cannot be connected from', async () => {
    const { seen } = dial(LOOPBACK, 1, '192.0.2.77' as Ip);
    await until('closed', () => seen.close !== undefined);
    expect(seen.close).toMatchObject({ reason: 'system', delivered: false });
  });
});
