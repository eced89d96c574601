import { createHash, type Hash } from 'node:crypto';
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';

/*
 * Traffic of lab tests, with node:net and nothing of ours: a server and its clients. A client's first line says what
 * it wants; its result is one line of JSON on standard output.
 *
 *   serve PORT                              the server, on every address
 *   up HOST PORT BYTES                      sends, and compares the SHA-256 that the server answers with
 *   down HOST PORT BYTES                    receives, and compares the SHA-256 at its end
 *   slow HOST PORT BYTES COUNT RATE         so many of them at once, no faster than so many bytes/s each, until SIGTERM
 *   ping HOST PORT COUNT [PARALLEL]         one byte there and back, again and again; percentiles in µs
 *   crowd HOST PORT COUNT [WAIT-MS]         so many connections, all open at once, each with an echo (asked for after
 *                                           so long); then all end
 *   hold HOST PORT PAUSE-MS                 one connection with an echo now and then: a line `echo` for each, `lost WHY` in the end
 *   load HOST PORT PARALLEL                 short connections with an echo, one after the other, until SIGTERM
 *   beat HOST PORT EVERY-MS GIVE-UP-MS      a short connection at every beat, whatever became of those before, until
 *                                           SIGTERM: a line `begun AT` for each, and in its end `echoed AT MS` or `failed AT MS`
 */

const DIGEST_BYTES = 32;
/** Not a divisor of the pattern's length, so that no two blocks begin alike: lost or swapped blocks change the sum. */
const STEP = 65_521;
const BLOCK = 256 * 1024;
const PATTERN = pattern(4 * 1024 * 1024);

function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length + BLOCK);
  let state = 0x9e3779b9;
  for (let i = 0; i < length; i += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes.writeUInt32LE(state, i);
  }
  bytes.copy(bytes, length, 0, BLOCK);
  return bytes;
}

/** Sends so many bytes, at the speed of the reader; their SHA-256. */
async function send(socket: Socket, length: number): Promise<Hash> {
  const hash = createHash('sha256');
  let offset = 0;
  for (let sent = 0; sent < length; ) {
    const part = PATTERN.subarray(offset, offset + Math.min(BLOCK, length - sent));
    hash.update(part);
    sent += part.length;
    offset = (offset + STEP) % (PATTERN.length - BLOCK);
    if (!socket.write(part)) await event(socket, 'drain');
  }
  return hash;
}

function event(socket: Socket, name: 'drain' | 'connect' | 'close'): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error) => reject(error);
    const closed = () => reject(new Error('closed'));
    const done = () => {
      socket.off('error', failed).off('close', closed);
      resolve();
    };
    socket.once('error', failed).once(name, done);
    if (name !== 'close') socket.once('close', closed);
  });
}

function serve(port: number): void {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    let head = Buffer.alloc(0);
    const nothing = () => socket.end();
    const begin = (chunk: Buffer) => {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf(10);
      if (end < 0) return;
      socket.off('data', begin).off('end', nothing);
      const [verb, amount] = head.subarray(0, end).toString().split(' ');
      const rest = head.subarray(end + 1);
      if (verb === 'echo') {
        if (rest.length > 0) socket.write(rest);
        socket.pipe(socket);
      } else if (verb === 'up') receiveAll(socket, rest);
      else {
        send(socket, Number(amount)).then(
          (hash) => socket.end(hash.digest()),
          () => socket.destroy(),
        );
        socket.resume();
      }
    };
    socket.on('data', begin).on('end', nothing);
  });
  server.listen({ port, host: '::', backlog: 8192 });
}

function receiveAll(socket: Socket, first: Buffer): void {
  const hash = createHash('sha256').update(first);
  socket.on('data', (chunk: Buffer) => hash.update(chunk));
  socket.on('end', () => socket.end(hash.digest()));
}

async function dial(host: string, port: number, request: string): Promise<Socket> {
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
  await event(socket, 'connect');
  socket.write(request);
  return socket;
}

async function up(host: string, port: number, length: number): Promise<object> {
  const socket = await dial(host, port, `up ${length}\n`);
  const answer: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => answer.push(chunk));
  const closed = event(socket, 'close');
  const began = performance.now();
  const hash = await send(socket, length);
  socket.end();
  await closed;
  return { bytes: length, ms: performance.now() - began, match: hash.digest().equals(Buffer.concat(answer)) };
}

/** False once slow readers are to read what is left as fast as they can. */
let slowly = true;

async function down(
  host: string,
  port: number,
  length: number,
  rate = Number.POSITIVE_INFINITY,
): Promise<object> {
  const socket = await dial(host, port, `down ${length}\n`);
  const hash = createHash('sha256');
  let bytes = 0;
  let tail = Buffer.alloc(0);
  const began = performance.now();
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    const inside = Math.max(0, Math.min(chunk.length, length - bytes));
    hash.update(chunk.subarray(0, inside));
    tail = Buffer.concat([tail, chunk.subarray(inside)]);
    bytes += inside;
    while (slowly && (bytes / rate) * 1000 > performance.now() - began) await pause(10);
  }
  return {
    bytes,
    ms: performance.now() - began,
    match: tail.length === DIGEST_BYTES && hash.digest().equals(tail),
  };
}

async function slow(
  host: string,
  port: number,
  length: number,
  count: number,
  rate: number,
): Promise<object> {
  process.once('SIGTERM', () => {
    slowly = false;
  });
  return Promise.all(Array.from({ length: count }, () => down(host, port, length, rate)));
}

async function ping(host: string, port: number, count: number, parallel = 1): Promise<object> {
  const times: number[] = [];
  const one = async (): Promise<void> => {
    const socket = await dial(host, port, 'echo 0\n');
    for (let i = 0; i < count; i++) {
      const began = performance.now();
      const back = new Promise<void>((resolve, reject) => {
        socket.once('data', () => resolve());
        socket.once('close', () => reject(new Error('closed')));
      });
      socket.write('.');
      await back;
      socket.removeAllListeners('close');
      times.push((performance.now() - began) * 1000);
      await pause(1);
    }
    const closed = event(socket, 'close');
    socket.end();
    await closed;
  };
  await Promise.all(Array.from({ length: parallel }, one));
  times.sort((a, b) => a - b);
  const at = (share: number) =>
    Math.round(times[Math.min(times.length - 1, Math.floor(times.length * share))]!);
  return { count: times.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

async function crowd(host: string, port: number, count: number, waitMs = 0): Promise<object> {
  const began = performance.now();
  let echoed = 0;
  const failures = new Map<string, number>();
  const sockets: Socket[] = [];
  const one = async (index: number): Promise<void> => {
    const word = `${index}`.padStart(64, '.');
    const socket = connect({ host, port, allowHalfOpen: true });
    sockets.push(socket);
    await event(socket, 'connect');
    let failure = new Error('closed');
    socket.on('error', (error) => {
      failure = error;
    });
    if (waitMs > 0) await pause(waitMs);
    if (socket.destroyed) throw failure;
    socket.write(`echo 0\n${word}`);
    let back = '';
    await new Promise<void>((resolve, reject) => {
      socket.on('data', (chunk: Buffer) => {
        back += chunk.toString();
        if (back.length >= word.length) resolve();
      });
      socket.once('error', reject).once('close', () => reject(new Error('closed')));
    });
    if (back !== word) throw new Error('another answer');
    echoed++;
  };
  await Promise.all(
    Array.from({ length: count }, (_, index) =>
      one(index).catch((error: Error) => failures.set(error.message, (failures.get(error.message) ?? 0) + 1)),
    ),
  );
  const openAtOnce = sockets.filter((socket) => !socket.destroyed).length;
  const echoMs = performance.now() - began;
  await Promise.all(
    sockets.map(async (socket) => {
      if (socket.destroyed) return;
      const closed = event(socket, 'close').catch(() => {});
      socket.end();
      await closed;
    }),
  );
  return { count, echoed, openAtOnce, echoMs, failures: Object.fromEntries(failures) };
}

async function hold(host: string, port: number, pauseMs: number): Promise<object> {
  const socket = await dial(host, port, 'echo 0\n');
  let echoes = 0;
  let why = 'closed';
  socket.on('data', () => {
    echoes++;
    console.log('echo');
    setTimeout(() => socket.write('.'), pauseMs);
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    why = error.code ?? error.message;
  });
  socket.on('end', () => socket.end());
  process.once('SIGTERM', () => {
    why = 'asked to';
    socket.end();
  });
  socket.write('.');
  await new Promise<void>((resolve) => socket.once('close', () => resolve()));
  console.log(`lost ${why}`);
  return { echoes };
}

/** Between one connection and the next: hundreds each second are load enough, and leave others a processor. */
const BREATH_MS = 10;

async function load(host: string, port: number, parallel: number): Promise<object> {
  let stopped = false;
  process.once('SIGTERM', () => {
    stopped = true;
  });
  const failures = new Map<string, number>();
  let done = 0;
  let worstMs = 0;
  const word = 'x'.repeat(1000);
  const loop = async (): Promise<void> => {
    while (!stopped) {
      const began = performance.now();
      try {
        await exchange(host, port, word);
        done++;
      } catch (error) {
        const why = (error as Error).message;
        failures.set(why, (failures.get(why) ?? 0) + 1);
      }
      worstMs = Math.max(worstMs, performance.now() - began);
      if (done % 10 === 0) console.error('progress');
      await pause(BREATH_MS);
    }
  };
  await Promise.all(Array.from({ length: parallel }, loop));
  return { done, worstMs: Math.round(worstMs), failures: Object.fromEntries(failures) };
}

async function beat(host: string, port: number, everyMs: number, giveUpMs = 5000): Promise<object> {
  const word = 'x'.repeat(100);
  const one = async (): Promise<void> => {
    const at = Date.now();
    const began = performance.now();
    console.error(`begun ${at}`);
    const echoed = await Promise.race([
      exchange(host, port, word).then(
        () => true,
        () => false,
      ),
      pause(giveUpMs, false, { ref: false }),
    ]);
    console.error(`${echoed ? 'echoed' : 'failed'} ${at} ${Math.round(performance.now() - began)}`);
  };
  const timer = setInterval(() => void one(), everyMs);
  await new Promise((resolve) => process.once('SIGTERM', resolve));
  clearInterval(timer);
  return {};
}

/** One whole connection: a word, its echo, both ends. */
async function exchange(host: string, port: number, word: string): Promise<void> {
  const socket = await dial(host, port, `echo 0\n${word}`);
  socket.end();
  let back = '';
  for await (const chunk of socket as AsyncIterable<Buffer>) back += chunk.toString();
  if (back !== word) throw new Error('another answer');
}

type Client = (host: string, port: number, amount: number, ...more: number[]) => Promise<object>;
const clients: Readonly<Record<string, Client>> = { up, down, slow, ping, crowd, hold, load, beat };

const [verb = '', host = '', ...numbers] = process.argv.slice(2);
if (verb === 'serve') serve(Number(host));
else {
  const [port = 0, amount = 0, ...more] = numbers.map(Number);
  const client = clients[verb];
  if (client === undefined) throw new Error(`no such verb: ${verb}`);
  console.log(JSON.stringify(await client(host, port, amount, ...more)));
  // A connection that was given up may still be open.
  process.exit(0);
}
