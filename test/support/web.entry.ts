import { createHash } from 'node:crypto';
import { Agent, createServer, get, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { pipeline, Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import { WebSocket, WebSocketServer } from 'ws';

/*
 * HTTP of lab tests, with node:http and ws and nothing of ours: a server and its clients. A client's result is one line
 * of JSON on standard output.
 *
 *   serve PORT NAME         the server, on every address: `/` answers NAME, `/blob/N` so many bytes in chunks with their
 *                           SHA-256 in a trailer, `/cut/N` and `/cut-chunked/N` so many and then a reset in the middle, `/head`
 *                           what it was asked, `/wait/MS` NAME after so long, `/broken` an answer that breaks a rule; a WebSocket gets every message back
 *   fleet PORT COUNT NAME MS
 *                           so many servers from PORT on in one process, NAME-0 and so on; the last of them answers after MS.
 *                           `/busy` answers 503, and `/count` how often that was asked of all of them
 *   load HOST PORT PARALLEL PATH
 *                           GET PATH on so many connections that stay, one after the other, until SIGTERM
 *   watch HOST PORT MS      GET / again and again on one connection: a line `saw STATUS MESH-ERROR` for each, until SIGTERM
 *   slow HOST PORT BYTES    GET /blob/BYTES: reads the beginning, says `begun`, and reads the rest after SIGTERM
 *   talk HOST PORT COUNT    a WebSocket, so many messages of growing size; each must come back
 */

/** Requests of `load` that take longer are counted. */
const LATE_MS = 1000;

const BLOCK = Buffer.alloc(64 * 1024, 'a block of an answer ');

async function serve(port: number, name: string): Promise<void> {
  const server = createServer((request, response) => answer(request, response, name));
  new WebSocketServer({ server }).on('connection', (socket) => {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
    socket.on('error', () => socket.terminate());
  });
  server.listen({ port, host: '::', backlog: 8192 });
}

function fleet(port: number, size: number, name: string, lateMs: number): void {
  let busy = 0;
  for (let i = 0; i < size; i++) {
    const delay = i === size - 1 ? lateMs : 0;
    const server = createServer((request, response) => {
      request.resume();
      if (request.url === '/count') response.end(`${busy}`);
      else if (request.url === '/busy') {
        busy++;
        response.writeHead(503).end('busy');
      } else if (delay > 0) setTimeout(() => response.end(`${name}-${i}\n`), delay);
      else response.end(`${name}-${i}\n`);
    });
    server.listen({ port: port + i, host: '::', backlog: 8192 });
  }
}

function* blocks(length: number): Generator<Buffer> {
  for (let left = length; left > 0; left -= BLOCK.length)
    yield BLOCK.subarray(0, Math.min(left, BLOCK.length));
}

function answer(request: IncomingMessage, response: ServerResponse, name: string): void {
  request.resume();
  const [, verb = '', amount = '0'] = (request.url ?? '').split('/');
  const length = Number(amount);
  if (verb === 'blob') {
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    response.writeHead(200, { trailer: 'x-sha256' });
    const hash = createHash('sha256');
    const content = Readable.from(blocks(length)).on('data', (block: Buffer) => hash.update(block));
    content.on('end', () => response.addTrailers({ 'x-sha256': hash.digest('hex') }));
    pipeline(content, response, () => {});
  } else if (verb === 'cut' || verb === 'cut-chunked') {
    response.writeHead(200, verb === 'cut' ? { 'content-length': 2 * length } : {});
    response.write(BLOCK.subarray(0, length), () => request.socket.resetAndDestroy());
  } else if (verb === 'head') {
    response.end(JSON.stringify({ method: request.method, url: request.url, headers: request.headers }));
  } else if (verb === 'broken') {
    request.socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc');
  } else if (verb === 'wait') setTimeout(() => response.end(`${name}\n`), length);
  else response.end(`${name}\n`);
}

interface Answer {
  readonly status: number;
  /** Its `mesh-error`. */
  readonly error: string | undefined;
  readonly text: string;
  readonly socket: Socket;
}

/** A GET, to the end of its answer. */
function fetched(host: string, port: number, agent: Agent, path = '/'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = get({ host, port, path, agent, timeout: 10_000 }, (response) => {
      const { socket, statusCode: status = 0 } = response;
      const error = response.headers['mesh-error']?.toString();
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('error', reject).on('end', () => resolve({ status, error, text: text.trim(), socket }));
    });
    request.on('timeout', () => request.destroy(new Error('timeout'))).on('error', reject);
  });
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

async function load(host: string, port: number, parallel: number, path: string): Promise<object> {
  let stopped = false;
  process.once('SIGTERM', () => {
    stopped = true;
  });
  const by = new Map<string, number>();
  const failures = new Map<string, number>();
  const began = performance.now();
  let done = 0;
  let late = 0;
  const loop = async (): Promise<void> => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    while (!stopped) {
      const asked = performance.now();
      await fetched(host, port, agent, path).then(
        ({ status, error, text }) =>
          status === 200 ? count(by, text) : count(failures, `${status} ${error} ${text}`),
        (error: Error) => count(failures, error.message),
      );
      if (performance.now() - asked >= LATE_MS) late++;
      if (++done % 100 === 0) console.error('progress');
    }
    agent.destroy();
  };
  await Promise.all(Array.from({ length: parallel }, loop));
  const took = performance.now() - began;
  return { by: Object.fromEntries(by), failures: Object.fromEntries(failures), done, late, took };
}

async function watch(host: string, port: number, everyMs: number): Promise<object> {
  let stopped = false;
  process.once('SIGTERM', () => {
    stopped = true;
  });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const sockets = new Set<Socket>();
  while (!stopped) {
    const { status, error, socket } = await fetched(host, port, agent);
    sockets.add(socket);
    console.error(`saw ${status}${error === undefined ? '' : ` ${error}`}`);
    await pause(everyMs);
  }
  return { connections: sockets.size };
}

async function slow(host: string, port: number, length: number): Promise<object> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get({ host, port, path: `/blob/${length}` }, resolve).on('error', reject);
  });
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    if (bytes === 0) {
      const asked = new Promise((resolve) => process.once('SIGTERM', resolve));
      // A process waits for signals only as long as it waits for something else.
      const waiting = setInterval(() => {}, 1000);
      console.error('begun');
      await asked;
      clearInterval(waiting);
    }
    bytes += part.length;
    hash.update(part);
  }
  return { bytes, match: response.trailers['x-sha256'] === hash.digest('hex') };
}

async function talk(host: string, port: number, messages: number): Promise<object> {
  const socket = new WebSocket(`ws://${host.includes(':') ? `[${host}]` : host}:${port}/talk?to=me`);
  const closed = new Promise<number>((resolve, reject) => {
    socket.on('close', resolve).on('error', reject);
  });
  let echoed = 0;
  const next = (): void => {
    if (echoed === messages) socket.close(1000);
    else socket.send(Buffer.alloc(2 ** echoed, echoed));
  };
  socket.on('open', next).on('message', (data: Buffer) => {
    if (!data.equals(Buffer.alloc(2 ** echoed, echoed)))
      throw new Error(`message ${echoed} came back otherwise`);
    echoed++;
    next();
  });
  const code = await closed;
  return { echoed, code };
}

type Client = (host: string, port: number, amount: number, path: string) => Promise<object>;
const clients: Readonly<Record<string, Client>> = { load, watch, slow, talk };

const [verb = '', first = '', second = '', third = '', fourth = ''] = process.argv.slice(2);
if (verb === 'serve') await serve(Number(first), second);
else if (verb === 'fleet') fleet(Number(first), Number(second), third, Number(fourth));
else {
  const client = clients[verb];
  if (client === undefined) throw new Error(`no such verb: ${verb}`);
  console.log(JSON.stringify(await client(first, Number(second), Number(third), fourth || '/')));
  process.exit(0);
}
