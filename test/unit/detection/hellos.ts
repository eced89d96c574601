import { Duplex } from 'node:stream';
import { type ConnectionOptions, connect } from 'node:tls';

/** The first flight of node's own TLS client. */
export function realHello(options: ConnectionOptions): Promise<Buffer> {
  return new Promise((resolve) => {
    const wire: Duplex = new Duplex({
      read() {},
      write(bytes: Buffer, _encoding, done) {
        resolve(bytes);
        done();
        wire.destroy();
      },
    });
    connect({ ...options, socket: wire }).on('error', () => {});
  });
}

/** A vector: its length in so many bytes, and its content. */
function vector(size: 1 | 2 | 3, ...content: readonly Uint8Array[]): Buffer {
  const bytes = Buffer.concat(content);
  const length = Buffer.alloc(size);
  length.writeUIntBE(bytes.length, 0, size);
  return Buffer.concat([length, bytes]);
}

const bytes = (...values: readonly number[]) => Buffer.from(values);

export function serverName(name: string, type = 0): Buffer {
  return extension(0, vector(2, bytes(type), vector(2, Buffer.from(name, 'latin1'))));
}

export function extension(type: number, value: Uint8Array): Buffer {
  return Buffer.concat([bytes(type >> 8, type & 255), vector(2, value)]);
}

/** The message, without records. */
export function helloMessage(extensions: readonly Uint8Array[] | undefined, session = 32): Buffer {
  return Buffer.concat([
    bytes(1),
    vector(
      3,
      ...[bytes(3, 3), Buffer.alloc(32, 7), vector(1, Buffer.alloc(session, 9))],
      ...[vector(2, bytes(0x13, 1, 0x13, 2)), vector(1, bytes(0))],
      ...(extensions === undefined ? [] : [vector(2, ...extensions)]),
    ),
  ]);
}

/** A message in records of at most so many bytes. */
export function records(message: Buffer, most = 1 << 14): Buffer {
  const pieces: Buffer[] = [];
  for (let at = 0; at < message.length; at += most)
    pieces.push(bytes(22, 3, 1), vector(2, message.subarray(at, at + most)));
  return Buffer.concat(pieces);
}
