import { readFileSync } from 'node:fs';
import { connect } from 'node:tls';
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

let left = peer.count;
async function dialer(): Promise<void> {
  while (left-- > 0) {
    await dialTls();
    open++;
  }
}
await Promise.all(Array.from({ length: OPENING }, dialer));
process.stdout.write('ready\n');
