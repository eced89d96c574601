import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readLoop } from '../../../src/tunnel/read-loop.ts';
import { TestAuthority, until } from './support.ts';

const RECORD = 16 * 1024;
let authority: TestAuthority;
beforeAll(() => {
  authority = new TestAuthority('mesh');
});
afterAll(() => authority.remove());

/** Two ends of a TLS connection over loopback. */
async function tlsPair(): Promise<{ near: TLSSocket; far: TLSSocket; close: () => void }> {
  const keys = authority.issue('server');
  let far: TLSSocket | undefined;
  const server = createServer(keys, (socket: TLSSocket) => {
    far = socket;
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address() as { port: number };
  const near = connect({ port: address.port, ca: keys.ca, checkServerIdentity: () => undefined });
  await until('the handshake', () => far !== undefined && near.getProtocol() !== null && near.authorized);
  const close = (): void => {
    for (const socket of [near, far as Socket | undefined]) socket?.destroy();
    server.close();
  };
  return { near, far: far!, close };
}

test('every byte arrives once and in order, whatever the sizes, on several connections at once', async () => {
  const sizes = [1, RECORD, 3 * RECORD, 17 * RECORD, RECORD - 1, 40 * RECORD + 5, RECORD + 1, 1_000_003];
  const pairs = await Promise.all([tlsPair(), tlsPair(), tlsPair()]);
  const runs = pairs.map(({ near, far }, index) => {
    const [source, sink] = index % 2 === 0 ? [near, far] : [far, near];
    const sent = createHash('sha256');
    const got = createHash('sha256');
    const state = { total: 0, received: 0, pieces: 0, ended: false, lengthAtEnd: 0 };
    expect(
      readLoop(sink, (bytes) => {
        state.received += bytes.length;
        state.pieces++;
        got.update(bytes);
      }),
    ).toBe(true);
    sink.on('end', () => {
      state.ended = true;
      state.lengthAtEnd = state.received;
    });
    for (let round = 0; round < 20; round++) {
      const size = sizes[(round * 7 + index) % sizes.length]!;
      const bytes = Buffer.alloc(size, `${index} ${round} `);
      bytes.writeUInt8(round, size - 1);
      sent.update(bytes);
      state.total += size;
      source.write(bytes);
    }
    // The end is in the same read as the last full records, perhaps.
    source.end();
    return { state, sent, got };
  });
  await until('all ends', () => runs.every(({ state }) => state.ended));
  for (const { state, sent, got } of runs) {
    expect(state.lengthAtEnd).toBe(state.total);
    expect(got.digest('hex')).toBe(sent.digest('hex'));
    expect(state.pieces).toBeLessThan(state.total / RECORD);
  }
  for (const { close } of pairs) close();
});

test('a full record that is followed by nothing is handed on', async () => {
  const { near, far, close } = await tlsPair();
  const received: number[] = [];
  readLoop(near, (bytes) => received.push(bytes.length));
  for (let round = 1; round <= 20; round++) {
    far.write(Buffer.alloc(RECORD));
    await until('the record', () => received.reduce((sum, size) => sum + size, 0) === round * RECORD);
  }
  close();
});
