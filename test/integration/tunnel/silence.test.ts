import { createServer, type Server, type Socket, connect as tcpConnect } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ChannelClose } from '../../../src/io/channel.ts';
import { TunnelPool } from '../../../src/tunnel/pool.ts';
import type { TunnelStream } from '../../../src/tunnel/stream.ts';
import {
  context,
  echo,
  makePair,
  openEcho,
  TestAuthority,
  TestCredentials,
  target,
  until,
} from './support.ts';

/** When a tunnel that owes a sign of life gets no bytes, and no streams, that it may lose; and when it is lost. */
const QUIET_MS = 250;
const DOUBT_MS = 500;
/** A stream takes a PING along when the last one is older. */
const PING_MS = 50;

let authority: TestAuthority;
const cleanup: (() => void)[] = [];
beforeAll(() => {
  authority = new TestAuthority('mesh');
});
afterEach(() => {
  for (const action of cleanup.splice(0)) action();
});
afterAll(() => authority.remove());

/** A TCP proxy through which, at will, nothing goes any more, as behind a host that is stopped or cut off. */
class Freezer {
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  /** Connections that come now stay without an answer, too. */
  swallowsNew = false;

  private constructor(to: number) {
    this.#server = createServer({ pauseOnConnect: true }, (from) => {
      this.#keep(from);
      if (this.swallowsNew) return;
      const there = this.#keep(tcpConnect(to, '127.0.0.1'));
      there.on('error', () => from.resetAndDestroy());
      from.pipe(there).pipe(from);
    });
    cleanup.push(() => {
      for (const socket of this.#sockets) socket.destroy();
      this.#server.close();
    });
  }

  static async before(to: number): Promise<{ freezer: Freezer; port: number }> {
    const freezer = new Freezer(to);
    await new Promise<void>((resolve) => freezer.#server.listen(0, '127.0.0.1', resolve));
    return { freezer, port: (freezer.#server.address() as { port: number }).port };
  }

  /** What stands now goes silent, both ways; the answer lets it go on. */
  freeze(): () => void {
    const frozen = [...this.#sockets];
    for (const socket of frozen) socket.cork();
    return () => {
      for (const socket of frozen) socket.uncork();
    };
  }

  #keep(socket: Socket): Socket {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => {});
    return socket;
  }
}

async function setup() {
  let freezer: Freezer | undefined;
  const pair = await makePair(authority, {
    through: async (to) => {
      const made = await Freezer.before(to);
      freezer = made.freezer;
      return made.port;
    },
  });
  cleanup.push(() => pair.close());
  pair.onOffer = echo;
  const open = () => watch(pair.pool.open(pair.target, openEcho));
  const first = open();
  await until('open', () => first.opened);
  await passed(2 * PING_MS);
  return { pair, freezer: freezer!, first, open };
}

async function passed(ms: number): Promise<void> {
  const since = performance.now();
  await until(`${ms} ms have passed`, () => performance.now() - since > ms);
}

interface Seen {
  readonly stream: TunnelStream;
  opened: boolean;
  received: number;
  close: ChannelClose | undefined;
}

function watch(stream: TunnelStream): Seen {
  const seen: Seen = { stream, opened: false, received: 0, close: undefined };
  stream.handler = {
    open: () => {
      seen.opened = true;
    },
    data: (bytes) => {
      seen.received += bytes.length;
    },
    end() {},
    drain() {},
    close: (why) => {
      seen.close = why;
    },
  };
  stream.resume();
  return seen;
}

describe('a tunnel that stands', () => {
  test('its silence is measured, its bytes stay here, the next stream gets another tunnel, and it is lost', async () => {
    const { pair, freezer, first, open } = await setup();
    expect(first.stream.silence).toBe(0);
    freezer.freeze();
    const asked = open();
    await until('it owes an answer', () => asked.stream.silence > QUIET_MS);
    const held = open();
    held.stream.write(Buffer.from('not yet'));
    await until('it is in doubt', () => held.stream.doubtful);
    expect(held.stream.bytesSent).toBe(0);
    const next = open();
    next.stream.write(Buffer.from('hello'));
    await until('served by another tunnel', () => next.received === 5);
    expect(pair.dials).toEqual(['ok', 'ok']);
    expect([next.stream.silence, next.stream.doubtful]).toEqual([0, false]);
    await until('the silent one is lost', () => held.close !== undefined);
    expect(held.close).toMatchObject({ reason: 'tunnel-lost', delivered: false });
    expect(first.close).toMatchObject({ reason: 'tunnel-lost' });
    const last = open();
    await until('served', () => last.opened);
    expect(pair.dials).toHaveLength(2);
  });

  test('one that is heard again takes over who waits for a dial', async () => {
    const { pair, freezer, open } = await setup();
    const thaw = freezer.freeze();
    freezer.swallowsNew = true;
    const asked = open();
    await until('it is in doubt', () => asked.stream.doubtful);
    const waits = open();
    expect(pair.pool.stats().map(({ state }) => state)).toEqual(['open', 'dialling']);
    expect(waits.stream.silence, 'the peer owes it already').toBeGreaterThanOrEqual(DOUBT_MS);
    thaw();
    await until('both are served', () => asked.opened && waits.opened);
    expect(pair.dials).toEqual(['ok']);
    expect(asked.stream.silence).toBe(0);
  });

  test('a callee that takes its time says nothing against the tunnel', async () => {
    const { pair, open } = await setup();
    pair.onOffer = () => {};
    const slow = open();
    await until('it was asked', () => pair.offers.length === 2);
    await passed(2 * DOUBT_MS);
    expect([slow.stream.silence, slow.stream.doubtful]).toEqual([0, false]);
    slow.stream.doubt();
    pair.onOffer = echo;
    const next = open();
    await until('the same tunnel is used', () => next.opened);
    expect(pair.dials).toEqual(['ok']);
  });
});

describe('a dial that is not answered', () => {
  test('whoever comes later knows how long it lasts, also of the one before; an answer ends that', async () => {
    const { freezer, port } = await Freezer.before(1);
    freezer.swallowsNew = true;
    const pool = new TunnelPool(
      context({ handshakeTimeout: 400, backoffBase: 1, backoffMax: 1 }),
      new TestCredentials(authority.issue('client')),
    );
    cleanup.push(() => pool.close());
    const open = () => watch(pool.open(target('server', port), openEcho));
    const first = open();
    expect(first.stream.silence).toBeLessThan(100);
    await until('it lasts', () => first.stream.silence > 200);
    expect(open().stream.silence).toBeGreaterThan(200);
    await until('it failed', () => first.close !== undefined);
    expect(first.close).toMatchObject({ reason: 'timeout', delivered: false, source: 'peer' });
    await until('the back-off is over', () => pool.stats().length === 0);
    const second = open();
    expect(second.stream.silence).toBeGreaterThan(400);
    await until('it failed', () => second.close !== undefined);
    // Refused: that is an answer.
    freezer.swallowsNew = false;
    await until('the back-off is over', () => pool.stats().length === 0);
    const third = open();
    await until('it failed', () => third.close !== undefined);
    await until('the back-off is over', () => pool.stats().length === 0);
    freezer.swallowsNew = true;
    expect(open().stream.silence).toBeLessThan(100);
  });
});
