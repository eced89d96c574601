import { createServer, type Server, type Socket, connect as tcpConnect } from 'node:net';
import { type TLSSocket, connect as tlsConnect } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import type { ChannelClose } from '../../../src/io/channel.ts';
import {
  FRAME_HEADER,
  frameType,
  writeCredit,
  writeGoaway,
  writeHeader,
  writeHello,
  writePing,
} from '../../../src/tunnel/frame.ts';
import { encodeOpen, type OpenRequest } from '../../../src/tunnel/open-request.ts';
import { TunnelPool } from '../../../src/tunnel/pool.ts';
import type { TunnelStream } from '../../../src/tunnel/stream.ts';
import {
  context,
  echo,
  makePair,
  node,
  openEcho,
  type Pair,
  service,
  settings,
  TestAuthority,
  TestCredentials,
  target,
  until,
} from './support.ts';

let authority: TestAuthority;
const cleanup: (() => void)[] = [];
beforeAll(() => {
  authority = new TestAuthority('mesh');
});
afterEach(() => {
  for (const action of cleanup.splice(0)) action();
});
afterAll(() => authority.remove());

async function pairOf(options: Parameters<typeof makePair>[1] = {}): Promise<Pair> {
  const pair = await makePair(authority, options);
  cleanup.push(() => pair.close());
  return pair;
}

/** What a stream's owner was told. */
interface Seen {
  readonly stream: TunnelStream;
  received: number;
  opened: boolean;
  ended: boolean;
  close: ChannelClose | undefined;
}

function watch(stream: TunnelStream): Seen {
  const seen: Seen = { stream, received: 0, opened: false, ended: false, close: undefined };
  stream.handler = {
    open: () => {
      seen.opened = true;
    },
    data: (bytes) => {
      seen.received += bytes.length;
    },
    end: () => {
      seen.ended = true;
    },
    drain() {},
    close: (why) => {
      seen.close = why;
    },
  };
  stream.resume();
  return seen;
}

/** A TCP proxy that holds every byte back for `delay` ms, and can be cut. */
async function delayProxy(
  to: number,
  delay: number,
): Promise<{ port: number; cut: () => void; close: () => void }> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((from) => {
    const there = tcpConnect(to, '127.0.0.1');
    for (const [source, sink] of [
      [from, there],
      [there, from],
    ] as const) {
      sockets.add(source);
      source.setNoDelay(true);
      source.on('error', () => {});
      source.on('data', (chunk) => {
        if (delay === 0) sink.write(chunk);
        else setTimeout(() => sink.write(chunk), delay);
      });
      source.on('close', () => sink.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const cut = () => {
    for (const socket of sockets) socket.resetAndDestroy();
  };
  const proxy = {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    cut,
    close: () => {
      cut();
      server.close();
    },
  };
  cleanup.push(proxy.close);
  return proxy;
}

describe('streams', () => {
  test('data goes with OPEN, before ACCEPT; open is told when it is accepted', async () => {
    const pair = await pairOf();
    const seen = watch(pair.pool.open(pair.target, openEcho));
    seen.stream.write(Buffer.from('hello'));
    await until('data before ACCEPT', () => pair.offers[0]?.stream.bytesReceived === 5);
    expect(pair.offers[0]!.open).toEqual(openEcho);
    expect(pair.offers[0]!.session.peer.node).toBe('client');
    expect(seen.opened).toBe(false);
    echo(pair.offers[0]!);
    await until('the echo', () => seen.opened && seen.received === 5);
  });

  test('RESET carries code, delivered and detail', async () => {
    const pair = await pairOf();
    pair.onOffer = ({ stream }) => stream.reset('refused', 'nobody listens');
    const refused = watch(pair.pool.open(pair.target, openEcho));
    refused.stream.write(Buffer.from('x'));
    await until('refused', () => refused.close !== undefined);
    expect(refused.close).toEqual({
      reason: 'refused',
      delivered: false,
      source: 'callee',
      detail: 'nobody listens',
    });
    for (const code of ['draining', 'overload', 'protocol', 'tunnel-lost'] as const) {
      pair.onOffer = ({ stream }) => stream.reset(code);
      const agent = watch(pair.pool.open(pair.target, openEcho));
      await until(code, () => agent.close !== undefined);
      expect(agent.close).toMatchObject({ reason: code, delivered: false, source: 'peer' });
    }
    pair.onOffer = (offer) => {
      echo(offer);
      offer.stream.handler.data = () => offer.stream.reset('reset');
    };
    const broken = watch(pair.pool.open(pair.target, openEcho));
    broken.stream.write(Buffer.from('x'));
    await until('reset', () => broken.close !== undefined);
    expect(broken.close).toMatchObject({ reason: 'reset', delivered: true });
  });

  test('a slow reader is held to its window and leaves a fast one alone', async () => {
    const pair = await pairOf();
    const slow = pair.pool.open(pair.target, openEcho);
    slow.write(Buffer.alloc(4_000_000));
    await until('the slow offer', () => pair.offers.length === 1);
    pair.offers[0]!.stream.accept();
    pair.onOffer = echo;
    const fast = watch(pair.pool.open(pair.target, openEcho));
    fast.stream.write(Buffer.alloc(3_000_000));
    await until('the fast echo', () => fast.received === 3_000_000);
    expect(pair.offers[0]!.stream.bytesReceived).toBeLessThanOrEqual(settings().initialWindow);
    expect(slow.pendingBytes).toBeGreaterThan(3_000_000);
  });

  test('windows and bytes under way grow with a delay of 50 ms', async () => {
    let proxy: Awaited<ReturnType<typeof delayProxy>> | undefined;
    const pair = await pairOf({
      through: async (port) => {
        proxy = await delayProxy(port, 25);
        return proxy.port;
      },
    });
    let received = 0;
    pair.onOffer = ({ stream }) => {
      stream.handler = {
        data(bytes) {
          received += bytes.length;
        },
        end() {},
        drain() {},
        close() {},
      };
      stream.accept();
      stream.resume();
    };
    const sender = pair.pool.open(pair.target, openEcho);
    const chunk = Buffer.alloc(256 * 1024);
    const push = () => {
      while (sender.write(chunk)) {}
    };
    sender.handler = { data() {}, end() {}, drain: push, close() {} };
    push();
    await until(
      'a wide window',
      () => (pair.offers[0]?.stream.windowSize ?? 0) >= 4 * settings().initialWindow,
    );
    await until('many bytes under way', () => sender.bytesSent - received > 2 * settings().initialWindow);
    sender.reset();
  });

  test('maxStreams: a further session takes what the first cannot', async () => {
    const pair = await pairOf({ server: { maxStreams: 4 } });
    pair.onOffer = echo;
    const seen = Array.from({ length: 10 }, () => watch(pair.pool.open(pair.target, openEcho)));
    for (const { stream } of seen) stream.write(Buffer.from('x'));
    await until('all echoes', () => seen.every(({ received }) => received === 1));
    expect(pair.acceptor.sessions.size).toBe(3);
  });

  test('an offered stream that nobody accepts is reset in time', async () => {
    const pair = await pairOf({ server: { handshakeTimeout: 50, keepaliveInterval: 50 } });
    const seen = watch(pair.pool.open(pair.target, openEcho));
    await until('the reset', () => seen.close !== undefined);
    expect(seen.close).toMatchObject({ reason: 'timeout', delivered: false });
  });
});

describe('dial and pool', () => {
  test('one dial for all who wait', async () => {
    const pair = await pairOf();
    pair.onOffer = echo;
    const seen = Array.from({ length: 50 }, () => watch(pair.pool.open(pair.target, openEcho)));
    for (const { stream } of seen) stream.write(Buffer.from('x'));
    await until('all echoes', () => seen.every(({ received }) => received === 1));
    expect(pair.acceptor.sessions.size).toBe(1);
    const address = `127.0.0.1:${pair.port}`;
    expect(pair.pool.stats()).toMatchObject([{ node: 'server', state: 'open', streams: 50, address }]);
    const [accepted] = pair.acceptor.sessions;
    expect(accepted!.remoteAddress).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(Math.abs(Date.now() - accepted!.since)).toBeLessThan(60_000);
    expect(pair.dials).toEqual(['ok']);
  });

  test('a refused dial fails with delivered false, and further ones at once while backing off', async () => {
    const outcomes: string[] = [];
    const pool = new TunnelPool(
      context({ backoffBase: 60_000, backoffMax: 60_000 }),
      new TestCredentials(authority.issue('client')),
      { dialled: (outcome) => outcomes.push(outcome) },
    );
    const seen = watch(pool.open(target('server', 1), openEcho));
    expect(seen.close).toBeUndefined();
    await until('refused', () => seen.close !== undefined);
    expect(seen.close).toMatchObject({ reason: 'refused', delivered: false });
    expect(pool.stats()).toMatchObject([{ state: 'back-off', address: '127.0.0.1:1' }]);
    expect(Math.abs(Date.now() - pool.stats()[0]!.since)).toBeLessThan(60_000);
    expect(outcomes).toEqual(['refused']);
    const again = watch(pool.open(target('server', 1), openEcho));
    await Promise.resolve();
    await Promise.resolve();
    expect(again.close).toMatchObject({ reason: 'refused', delivered: false });
  });

  test('a peer of another name, or of another authority, is not believed', async () => {
    const pair = await pairOf();
    const wrongName = watch(pair.pool.open(target('other', pair.port), openEcho));
    const stranger = new TestAuthority('stranger');
    cleanup.push(() => stranger.remove());
    const pool = new TunnelPool(context(), new TestCredentials(stranger.issue('client')));
    const wrongAuthority = watch(pool.open(pair.target, openEcho));
    await until('both fail', () => wrongName.close !== undefined && wrongAuthority.close !== undefined);
    expect(wrongName.close).toMatchObject({ reason: 'tls', delivered: false });
    expect(wrongAuthority.close).toMatchObject({ reason: 'tls', delivered: false });
    // Believes the server, but is not believed by it.
    const halfWay = { ...stranger.issue('client'), ca: authority.certificate };
    const unbelieved = watch(
      new TunnelPool(context(), new TestCredentials(halfWay)).open(pair.target, openEcho),
    );
    await until('refused by the server', () => unbelieved.close !== undefined);
    expect(unbelieved.close).toMatchObject({ delivered: false });
    expect(pair.acceptor.sessions.size).toBe(0);
  });

  test('a stream goes only where the certificate of the peer allows it: queued, and in a session that stands', async () => {
    const pair = await pairOf();
    pair.onOffer = echo;
    pair.credentials.peersMay = { host: new Set([service('echo')]) };
    const other: OpenRequest = { ...openEcho, service: service('orders') };
    const relay: OpenRequest = {
      kind: 'relay',
      service: service('echo'),
      zone: 'z',
      node: node('n'),
      hops: 1,
      via: [],
    };
    const denied = (what: RegExp) => ({
      reason: 'denied',
      delivered: false,
      source: 'peer',
      detail: expect.stringMatching(what),
    });
    const verify = async (): Promise<void> => {
      const allowed = watch(pair.pool.open(pair.target, openEcho));
      const hosting = watch(pair.pool.open(pair.target, other));
      const relaying = watch(pair.pool.open(pair.target, relay));
      hosting.stream.write(Buffer.from('secret'));
      expect(hosting.close).toBeUndefined();
      await until('answers', () => allowed.opened && !!hosting.close && !!relaying.close);
      expect(hosting.close).toEqual(denied(/server does not grant hosting orders/));
      expect(relaying.close).toEqual(denied(/server .* relay/));
      expect(allowed.close).toBeUndefined();
    };
    await verify();
    await verify();
    expect(pair.offers.map(({ open }) => open)).toEqual([openEcho, openEcho]);
    expect([...pair.acceptor.sessions].map(({ streamCount }) => streamCount)).toEqual([2]);
    const zoneAgent = await pairOf();
    zoneAgent.onOffer = echo;
    zoneAgent.credentials.peersMay = { host: new Set(), relay: true };
    const relayed = watch(zoneAgent.pool.open(zoneAgent.target, relay));
    const hosted = watch(zoneAgent.pool.open(zoneAgent.target, openEcho));
    await until('answers', () => relayed.opened && hosted.close !== undefined);
    expect(hosted.close).toEqual(denied(/hosting echo/));
  });

  test('a certificate that is renewed is used for new handshakes; live tunnels stay', async () => {
    const pair = await pairOf();
    pair.onOffer = echo;
    const first = watch(pair.pool.open(pair.target, openEcho));
    await until('open', () => first.opened);
    const credentials = new TestCredentials(authority.issue('client2'));
    const second = watch(new TunnelPool(context(), credentials).open(pair.target, openEcho));
    await until('open', () => second.opened);
    credentials.pair = authority.issue('client3');
    expect([...pair.acceptor.sessions].map(({ peer }) => peer.node)).toEqual(['client', 'client2']);
    expect(first.close).toBeUndefined();
  });

  test('the connection below is cut: streams are lost, what never left was not delivered, the next one dials', async () => {
    let proxy: Awaited<ReturnType<typeof delayProxy>> | undefined;
    const pair = await pairOf({
      through: async (port) => {
        proxy = await delayProxy(port, 0);
        return proxy.port;
      },
      client: { backoffBase: 1, backoffMax: 1 },
    });
    pair.onOffer = echo;
    const used = watch(pair.pool.open(pair.target, openEcho));
    const unused = watch(pair.pool.open(pair.target, openEcho));
    used.stream.write(Buffer.from('x'));
    await until('open', () => used.received === 1 && unused.opened);
    proxy!.cut();
    await until('lost', () => used.close !== undefined && unused.close !== undefined);
    expect(used.close).toMatchObject({ reason: 'tunnel-lost', delivered: true });
    expect(unused.close).toMatchObject({ reason: 'tunnel-lost', delivered: false });
    await until('the back-off is over', () => pair.pool.stats().length === 0);
    const next = watch(pair.pool.open(pair.target, openEcho));
    await until('a new tunnel', () => next.opened);
  });

  test('GOAWAY: new streams go to a new session, old ones finish', async () => {
    const pair = await pairOf();
    pair.onOffer = echo;
    const old = watch(pair.pool.open(pair.target, openEcho));
    await until('open', () => old.opened);
    const [session] = pair.acceptor.sessions;
    session!.drain();
    await until('the pool knows', () => pair.pool.stats()[0]?.state === 'draining');
    const next = watch(pair.pool.open(pair.target, openEcho));
    await until('the next one is open', () => next.opened);
    old.stream.write(Buffer.from('x'));
    await until('the old one works', () => old.received === 1);
    old.stream.end();
    await until('the old one is done', () => old.close?.reason === 'done');
    await until('its session is over', () => session!.state === 'closed');
    expect(next.close).toBeUndefined();
    await Promise.all([
      until('drained', () => next.close?.reason === 'done'),
      pair.pool.drain(),
      next.stream.end(),
    ]);
    expect(watch(pair.pool.open(pair.target, openEcho)).close).toBeUndefined();
  });

  test('a peer that never answers is lost after two keepalives; an idle tunnel is closed', async () => {
    const silent = await pairOf({ client: { keepaliveInterval: 30 } });
    silent.onOffer = echo;
    const seen = watch(silent.pool.open(silent.target, openEcho));
    await until('open', () => seen.opened);
    const [session] = silent.acceptor.sessions;
    session!.outbox.finish(Buffer.alloc(0));
    await until('lost', () => seen.close !== undefined);
    expect(seen.close?.reason).toBe('tunnel-lost');
    const idle = await pairOf({ client: { idleTimeout: 50, keepaliveInterval: 20 } });
    idle.onOffer = echo;
    const short = watch(idle.pool.open(idle.target, openEcho));
    await until('open', () => short.opened);
    short.stream.end();
    await until('idle close', () => idle.acceptor.sessions.size === 0 && idle.pool.stats().length === 0);
  });
});

describe('hostile peers', () => {
  /** A stock `ws` client with a valid certificate. */
  function stock(port: number, protocol = 'mesh-tunnel.v1', path = '/mesh-tunnel'): WebSocket {
    const socket = new WebSocket(`wss://127.0.0.1:${port}${path}`, [protocol], {
      ...authority.issue('stock'),
      // The types of ws want a boolean; node takes any falsy value for "no objection".
      checkServerIdentity: () => false,
      perMessageDeflate: false,
    });
    socket.on('error', () => {});
    cleanup.push(() => socket.terminate());
    return socket;
  }
  const frame = (type: number, stream: number, body: Uint8Array = Buffer.alloc(0)): Buffer => {
    const out = Buffer.alloc(FRAME_HEADER + body.length);
    out.set(body, writeHeader(out, 0, type, stream, body.length));
    return out;
  };
  const hello = Buffer.alloc(28);
  writeHello(hello, 0, { openCredit: 16384, maxStreams: 10, capabilities: 0, epoch: 9n });

  async function connected(pair: Pair): Promise<{ socket: WebSocket; closed: () => boolean }> {
    const socket = stock(pair.port);
    let closed = false;
    socket.on('close', () => {
      closed = true;
    });
    await until(
      'the session',
      () => pair.acceptor.sessions.size === 1 && socket.readyState === WebSocket.OPEN,
    );
    return { socket, closed: () => closed };
  }

  test('a stock WebSocket client with masks of its own talks to us, unknown frames are skipped', async () => {
    const pair = await pairOf();
    pair.onOffer = echo;
    const { socket } = await connected(pair);
    const received: Buffer[] = [];
    socket.on('message', (data: Buffer) => received.push(data));
    const ping = Buffer.alloc(16);
    writePing(ping, 0, 9, 77n);
    socket.send(
      Buffer.concat([
        hello,
        frame(99, 7, Buffer.alloc(5000)),
        frame(frameType.open, 1, encodeOpen(openEcho)),
        frame(frameType.data, 1, Buffer.from('hello')),
        frame(frameType.end, 1),
        ping,
      ]),
    );
    const has = (part: Buffer) => Buffer.concat(received).includes(part);
    const pong = Buffer.alloc(16);
    writePing(pong, 0, 10, 77n);
    await until('all answers', () =>
      [frame(frameType.data, 1, Buffer.from('hello')), frame(frameType.end, 1), pong].every(has),
    );
  });

  test('whoever goes away before a HELLO has come says that it took no stream: some may be under way', async () => {
    const pair = await pairOf();
    const { socket, closed } = await connected(pair);
    const received: Buffer[] = [];
    socket.on('message', (data: Buffer) => received.push(data));
    pair.acceptor.drain();
    await until('it ends', closed);
    const goaway = Buffer.alloc(512);
    const length = writeGoaway(goaway, 0, { last: 0, code: 'draining', detail: '' });
    expect(Buffer.concat(received).includes(goaway.subarray(0, length))).toBe(true);
  });

  test('what is under way to an acceptor that closes does not overtake its last word', async () => {
    const pair = await pairOf();
    const { socket } = await connected(pair);
    let code = 0;
    socket.on('close', (said: number) => {
      code = said;
    });
    socket.send(hello);
    await until('open', () => [...pair.acceptor.sessions][0]?.state === 'open');
    pair.acceptor.close();
    const gone = pair.acceptor.gone(60_000);
    for (let id = 1; id < 200; id += 2) socket.send(frame(frameType.open, id, encodeOpen(openEcho)));
    await until('it ends', () => code !== 0);
    expect(code).toBe(1000);
    await gone;
  });

  for (const [name, bytes] of [
    ['a frame before HELLO', frame(frameType.ping, 0, Buffer.alloc(8))],
    ['a HELLO with credit beyond 2^31', Buffer.concat([hello.subarray(0, 8), Buffer.alloc(20, 0xff)])],
    ['a second HELLO', Buffer.concat([hello, hello])],
    ['a stream number of ours', Buffer.concat([hello, frame(frameType.open, 2, encodeOpen(openEcho))])],
    ['data for a stream that never was', Buffer.concat([hello, frame(frameType.data, 5, Buffer.alloc(1))])],
    [
      'data beyond its credit',
      Buffer.concat([
        hello,
        frame(frameType.open, 1, encodeOpen(openEcho)),
        frame(frameType.data, 1, Buffer.alloc(16385)),
      ]),
    ],
    [
      'a frame that crosses its message',
      Buffer.concat([hello, frame(frameType.data, 1, Buffer.alloc(9)).subarray(0, 12)]),
    ],
    [
      'credit beyond 2^31',
      (() => {
        const credit = Buffer.alloc(12);
        writeCredit(credit, 0, 5, 1, 0xffffffff);
        return Buffer.concat([hello, frame(frameType.open, 1, encodeOpen(openEcho)), credit]);
      })(),
    ],
    ['a flood', Buffer.concat([hello, ...Array.from({ length: 30_000 }, () => frame(200, 0))])],
    ['a message that is too long', Buffer.alloc(256 * 1024 + 1)],
  ] as const) {
    test(`${name} ends the tunnel, and nothing else`, async () => {
      const pair = await pairOf();
      const { socket, closed } = await connected(pair);
      socket.send(bytes);
      await until('the end', () => closed() && pair.acceptor.sessions.size === 0);
      const well = watch(pair.pool.open(pair.target, openEcho));
      await until('the acceptor lives', () =>
        pair.offers.some(({ session }) => session.peer.node === 'client'),
      );
      well.stream.reset();
    });
  }

  test('an OPEN that cannot be read is reset, the tunnel lives', async () => {
    const pair = await pairOf();
    const { socket } = await connected(pair);
    socket.send(Buffer.concat([hello, frame(frameType.open, 1, Buffer.from([0xc1]))]));
    socket.send(frame(frameType.open, 3, encodeOpen(openEcho)));
    await until('the second one', () => pair.offers.length === 1);
    expect(pair.acceptor.sessions.size).toBe(1);
  });

  test('a wrong subprotocol, a wrong path, an ordinary request, no certificate', async () => {
    const pair = await pairOf();
    const status = (socket: WebSocket) =>
      new Promise((resolve) =>
        socket.on('unexpected-response', (_request, answer) => resolve(answer.statusCode)),
      );
    expect(await status(stock(pair.port, 'chat'))).toBe(426);
    expect(await status(stock(pair.port, 'mesh-tunnel.v1', '/'))).toBe(404);
    const plain: TLSSocket = tlsConnect({
      port: pair.port,
      ...authority.issue('x'),
      checkServerIdentity: () => undefined,
    });
    let answer = '';
    plain.on('data', (chunk) => {
      answer += chunk.toString();
    });
    plain.on('error', () => {});
    plain.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await until('an answer and the end', () => answer.startsWith('HTTP/1.1 404') && plain.closed);
    const anonymous = tlsConnect({
      port: pair.port,
      ca: authority.certificate,
      checkServerIdentity: () => undefined,
    });
    anonymous.on('error', () => {});
    anonymous.resume();
    await until('refused', () => anonymous.closed);
    await until('nothing is left', () => pair.acceptor.halfOpen === 0);
  });

  test('handshakes that stay half open are ended in time', async () => {
    const pair = await pairOf({ server: { handshakeTimeout: 100 } });
    const mute = tcpConnect(pair.port, '127.0.0.1');
    mute.on('error', () => {});
    const slow = tlsConnect({
      port: pair.port,
      ...authority.issue('slow'),
      checkServerIdentity: () => undefined,
    });
    slow.on('error', () => {});
    mute.resume();
    slow.resume();
    await until('both are there', () => pair.acceptor.halfOpen === 2);
    await until('both are ended', () => mute.closed && slow.closed && pair.acceptor.halfOpen === 0);
  });
});
