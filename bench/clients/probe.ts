import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { ProbeAnswer, ProbeRequest } from './probe-protocol.ts';

/*
 * Runs in the client's namespace for as long as the topology lives: makes single exchanges (to see that a path works
 * and which way it goes) and holds idle connections. Commands come as JSON lines on standard input.
 */

const EXCHANGE_TIMEOUT_MS = 5000;
/** Connections that are being opened at once: less than a usual listen backlog. */
const OPENING = 64;

const held: Socket[] = [];

/** One request; resolves with the whole answer when it is complete. */
function exchange(request: ProbeRequest, keep: boolean): Promise<ProbeAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect(request.port, request.host);
    let local = '';
    let text = '';
    const fail = (why: string): void => {
      socket.destroy();
      reject(new Error(why));
    };
    socket.setTimeout(EXCHANGE_TIMEOUT_MS, () => fail('no answer in time'));
    socket.on('error', (error) => fail(error.message));
    socket.on('close', () => reject(new Error('closed before the answer was complete')));
    socket.on('connect', () => {
      local = `${socket.localAddress}:${socket.localPort}`;
      const header = request.close === true ? 'Connection: close\r\n' : '';
      socket.write(`GET ${request.path} HTTP/1.1\r\nHost: ${request.host}:${request.port}\r\n${header}\r\n`);
    });
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk;
      const head = text.indexOf('\r\n\r\n');
      const length = Number(/^content-length: (\d+)\r$/im.exec(text)?.[1] ?? Number.NaN);
      if (head < 0 || Number.isNaN(length) || text.length < head + 4 + length) return;
      socket.removeAllListeners('close').setTimeout(0);
      if (keep) held.push(socket);
      else socket.destroy();
      const status = Number(text.slice(9, 12));
      resolve({ id: request.id, status, body: text.slice(head + 4), bytes: text.length, local });
    });
  });
}

async function hold(request: ProbeRequest): Promise<ProbeAnswer> {
  let left = request.count ?? 0;
  const worker = async (): Promise<void> => {
    while (left-- > 0) await exchange(request, true);
  };
  await Promise.all(Array.from({ length: OPENING }, worker));
  // Counted last: a connection that was dropped while others were still being opened is a failed measurement.
  const open = held.filter((socket) => !socket.destroyed && socket.readable).length;
  if (open !== request.count) throw new Error(`${open} of ${request.count} connections stayed open`);
  return { id: request.id, count: open };
}

async function answer(request: ProbeRequest): Promise<ProbeAnswer> {
  switch (request.op) {
    case 'exchange':
      return exchange(request, false);
    case 'hold':
      return hold(request);
    case 'release':
      for (const socket of held.splice(0)) socket.destroy();
      return { id: request.id };
  }
}

createInterface({ input: process.stdin }).on('line', (line) => {
  const request = JSON.parse(line) as ProbeRequest;
  void answer(request)
    .catch((error: unknown): ProbeAnswer => ({ id: request.id, error: String(error) }))
    .then((reply) => process.stdout.write(`${JSON.stringify(reply)}\n`));
});
