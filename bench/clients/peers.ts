import { readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { connect } from 'node:tls';
import { WebSocket } from 'ws';
import type { PeerPort } from '../subjects/subject.ts';

/*
 * Many peers in one process: opens connections as other hosts would, says `ready` when all stand and keeps them, idle,
 * until it is ended. One argument, JSON: the port and the number of peers.
 */

/** Handshakes at once. */
const OPENING = 16;

const peer = JSON.parse(process.argv[2]!) as PeerPort & { readonly count: number };
const credentials = {
  ca: readFileSync(peer.authority),
  cert: readFileSync(peer.certificate),
  key: readFileSync(peer.key),
  minVersion: 'TLSv1.3',
  checkServerIdentity: () => undefined, // the peer's name is not what is measured
} as const;
let open = 0;

function lost(why: string): void {
  process.stdout.write(`a peer was dropped after ${open} of ${peer.count} stood: ${why}\n`, () =>
    process.exit(1),
  );
}

function dialTls(): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect({ host: peer.address, port: peer.port, ...credentials });
    socket.on('error', (error) => lost(error.message));
    socket.on('close', () => lost('closed'));
    socket.once('secureConnect', () => resolve());
    socket.resume();
  });
}

/* Frames of docs/tunnel.md: type in the low byte and length in the other three, stream, body. */
const HELLO = 1;
const PING = 9;
const PONG = 10;
const HEADER_BYTES = 8;
const OPEN_CREDIT = 16 * 1024;
const MAX_STREAMS = 4096;

function frame(type: number, body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + body.length);
  bytes.writeUInt32LE(type | (body.length << 8), 0);
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

function hello(): Buffer {
  const body = Buffer.alloc(20); // capabilities and epoch stay zero
  body.writeUInt32LE(OPEN_CREDIT, 0);
  body.writeUInt32LE(MAX_STREAMS, 4);
  return frame(HELLO, body);
}

/** Carries the credentials; every tunnel has a full handshake, as the specification demands. */
const agent = new Agent({ ...credentials, maxCachedSessions: 0 });

/** A tunnel of mesh-node that opens no stream; it stands when the other side has said HELLO. */
function dialMesh(): Promise<void> {
  return new Promise((resolve) => {
    const socket = new WebSocket(`wss://${peer.address}:${peer.port}/mesh-tunnel`, ['mesh-tunnel.v1'], {
      agent,
      perMessageDeflate: false,
      generateMask: (mask) => {
        mask.fill(0);
      },
    });
    socket.on('error', (error) => lost(error.message));
    socket.on('close', (code, reason) => lost(`closed: ${code} ${reason}`));
    socket.on('open', () => socket.send(hello()));
    socket.on('message', (data: Buffer) => {
      for (let at = 0; at + HEADER_BYTES <= data.length; ) {
        const word = data.readUInt32LE(at);
        const body = data.subarray(at + HEADER_BYTES, at + HEADER_BYTES + (word >>> 8));
        if ((word & 0xff) === HELLO) resolve();
        if ((word & 0xff) === PING) socket.send(frame(PONG, body));
        at += HEADER_BYTES + body.length;
      }
    });
  });
}

const dial = peer.kind === 'mesh' ? dialMesh : dialTls;
let left = peer.count;
async function dialer(): Promise<void> {
  while (left-- > 0) {
    await dial();
    open++;
  }
}
await Promise.all(Array.from({ length: OPENING }, dialer));
process.stdout.write('ready\n');
