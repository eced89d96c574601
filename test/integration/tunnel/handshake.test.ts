import { createHash } from 'node:crypto';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ChannelClose } from '../../../src/io/channel.ts';
import { HELLO_SIZE, writeHello } from '../../../src/tunnel/frame.ts';
import { TunnelPool } from '../../../src/tunnel/pool.ts';
import { context, makePair, openEcho, TestAuthority, TestCredentials, target, until } from './support.ts';

let authority: TestAuthority;
const cleanup: (() => void)[] = [];
beforeAll(() => {
  authority = new TestAuthority('mesh');
});
afterEach(() => {
  for (const action of cleanup.splice(0)) action();
});
afterAll(() => authority.remove());

/** An acceptor that answers the request as it likes; `answer` gets the value that the accept header should have. */
async function acceptor(answer: (socket: TLSSocket, accept: string) => void): Promise<number> {
  const sockets = new Set<TLSSocket>();
  const server = createServer({ ...authority.issue('server'), requestCert: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    let head = '';
    socket.on('data', (chunk) => {
      if (head.endsWith('\r\n\r\n')) return;
      head += chunk.toString('latin1');
      if (!head.endsWith('\r\n\r\n')) return;
      const key = /^sec-websocket-key: (.*)$/im.exec(head)?.[1]?.trim() ?? '';
      const guid = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
      answer(
        socket,
        createHash('sha1')
          .update(key + guid)
          .digest('base64'),
      );
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanup.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as { port: number }).port;
}

/** How a stream to this acceptor ends. */
async function dialled(port: number, handshakeTimeout = 5000): Promise<ChannelClose> {
  const credentials = new TestCredentials(authority.issue('client'));
  const pool = new TunnelPool(context({ handshakeTimeout }), credentials);
  cleanup.push(() => pool.close());
  const stream = pool.open(target('server', port), openEcho);
  let close: ChannelClose | undefined;
  stream.handler = {
    data() {},
    end() {},
    drain() {},
    close: (why) => {
      close = why;
    },
  };
  stream.write(Buffer.from('x'));
  await until('the end', () => close !== undefined);
  return close!;
}

const upgraded = (accept: string, more = ''): string =>
  `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
  `Sec-WebSocket-Accept: ${accept}\r\n${more}\r\n`;
const PROTOCOL = 'Sec-WebSocket-Protocol: mesh-tunnel.v1\r\n';

describe('an acceptor that answers wrongly', () => {
  for (const [name, answer] of [
    ['another status', () => 'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n'],
    ['a redirect', () => 'HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n'],
    ['no HTTP', () => 'SSH-2.0-OpenSSH_9.2\r\n\r\n'],
    ['a wrong Sec-WebSocket-Accept', () => upgraded('AAAAAAAAAAAAAAAAAAAAAAAAAAA=', PROTOCOL)],
    ['no subprotocol', (accept: string) => upgraded(accept)],
    [
      'another subprotocol',
      (accept: string) => upgraded(accept, 'Sec-WebSocket-Protocol: mesh-tunnel.v2\r\n'),
    ],
    [
      'an extension',
      (accept: string) => upgraded(accept, `${PROTOCOL}Sec-WebSocket-Extensions: permessage-deflate\r\n`),
    ],
    [
      'a head beyond its bound',
      (accept: string) => upgraded(accept, `${PROTOCOL}X: ${'x'.repeat(9000)}\r\n`),
    ],
    ['a text message in the same write', (accept: string) => `${upgraded(accept, PROTOCOL)}\x81\x02hi`],
  ] as const) {
    test(name, async () => {
      const port = await acceptor((socket, accept) => socket.write(answer(accept), 'latin1'));
      expect(await dialled(port)).toMatchObject({ reason: 'protocol', delivered: false, source: 'peer' });
    });
  }

  test('silence, before the answer and after it', async () => {
    const timeout = { reason: 'timeout', delivered: false, source: 'peer' };
    expect(await dialled(await acceptor(() => {}), 200)).toMatchObject(timeout);
    const mute = await acceptor((socket, accept) => socket.write(upgraded(accept, PROTOCOL)));
    expect(await dialled(mute, 200)).toMatchObject(timeout);
  });

  test('the end, before the answer and after it', async () => {
    expect(await dialled(await acceptor((socket) => socket.end()))).toMatchObject({ delivered: false });
    const port = await acceptor((socket, accept) => socket.end(upgraded(accept, PROTOCOL)));
    expect(await dialled(port)).toMatchObject({ reason: 'tunnel-lost', delivered: false });
  });
});

test('what comes in the same write as the answer belongs to the session', async () => {
  const hello = Buffer.alloc(HELLO_SIZE);
  writeHello(hello, 0, { openCredit: 16384, maxStreams: 10, capabilities: 0, epoch: 1n });
  const port = await acceptor((socket, accept) =>
    socket.write(
      Buffer.concat([Buffer.from(upgraded(accept, PROTOCOL)), Buffer.from([0x82, hello.length]), hello]),
    ),
  );
  const pool = new TunnelPool(context(), new TestCredentials(authority.issue('client')));
  cleanup.push(() => pool.close());
  pool.open(target('server', port), openEcho);
  await until('open', () => pool.stats()[0]?.state === 'open');
});

describe('a dialler that asks wrongly', () => {
  const request = (change: Readonly<Record<string, string | undefined>>, method = 'GET'): string => {
    const headers = {
      Host: 'server',
      Connection: 'Upgrade',
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
      'Sec-WebSocket-Protocol': 'mesh-tunnel.v9, mesh-tunnel.v1',
      ...change,
    };
    const lines = Object.entries(headers).flatMap(([key, value]) =>
      value === undefined ? [] : [`${key}: ${value}\r\n`],
    );
    return `${method} /mesh-tunnel HTTP/1.1\r\n${lines.join('')}\r\n`;
  };
  for (const [name, text, status] of [
    ['nothing', request({}), 101],
    ['the method', request({}, 'POST'), 405],
    ['the key', request({ 'Sec-WebSocket-Key': 'short' }), 400],
    ['no key', request({ 'Sec-WebSocket-Key': undefined }), 400],
    ['the version', request({ 'Sec-WebSocket-Version': '7' }), 400],
    ['another upgrade', request({ Upgrade: 'h2c' }), 400],
    ['the subprotocol', request({ 'Sec-WebSocket-Protocol': 'chat' }), 426],
    ['no subprotocol', request({ 'Sec-WebSocket-Protocol': undefined }), 426],
  ] as const) {
    test(`wrong: ${name}`, async () => {
      const pair = await makePair(authority);
      cleanup.push(() => pair.close());
      const socket = connect({
        port: pair.port,
        ...authority.issue('asker'),
        checkServerIdentity: () => undefined,
      });
      cleanup.push(() => socket.destroy());
      socket.on('error', () => {});
      let answer = '';
      socket.on('data', (chunk) => {
        answer += chunk.toString('latin1');
      });
      socket.write(text);
      await until('the answer', () => answer.includes('\r\n\r\n'));
      expect(answer.slice(0, 12)).toBe(`HTTP/1.1 ${status}`);
      if (status === 101) {
        expect(answer).toContain('Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n');
        expect(answer).toContain('Sec-WebSocket-Protocol: mesh-tunnel.v1\r\n');
        expect(answer).not.toContain('Extensions');
        expect(pair.acceptor.halfOpen).toBe(0);
        return;
      }
      await until('the end', () => socket.closed && pair.acceptor.halfOpen === 0);
      expect(pair.acceptor.sessions.size).toBe(0);
    });
  }
});
