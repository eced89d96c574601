import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ChannelClose, ChannelHandler } from '../../../src/io/channel.ts';
import { closeDescriptor, countDescriptors, raiseDescriptorLimit } from '../../../src/io/descriptors.ts';
import { createListeningSocket, TcpListener } from '../../../src/io/listener.ts';
import { Poller } from '../../../src/io/poller.ts';
import { TcpChannel } from '../../../src/io/socket.ts';
import { localEndpointOf } from '../../../src/io/socket-options.ts';
import { type Ip, parseIp } from '../../../src/model/address.ts';
import { patternBytes } from '../../conformance/channel.ts';

/*
 * Opens and breaks connections in every way that proxies have been seen to get wrong, both ends in this process. What a
 * connection carries derives from its number, so that a byte that strayed into another connection is found.
 */

const CONNECTIONS = 100_000;
const CONCURRENCY = 300;
const DEADLINE_MS = 120_000;

/** Ways to live and die, and how many of a thousand connections do. */
const ways = {
  clean: 230, // request, end, answer, end
  'server-ends-first': 120, // the other order of half-closes
  'idle-end': 60, // both ends without a byte
  'client-reset': 120, // in the middle of the answer
  'server-reset': 120, // in the middle of the request
  'server-reset-at-once': 80, // while the client believes it is connected
  'client-reset-at-once': 90, // before the handshake is known to be over
  refused: 80,
  'unread-data': 60, // close(2) with bytes in the receive queue: the kernel sends a reset
  'pending-reset': 4, // reset with megabytes that never went out
  detached: 34, // the descriptor is handed over and closed by somebody else
  timeout: 2, // nobody answers the SYN
} as const;
type Way = keyof typeof ways;

const schedule: Way[] = Object.entries(ways).flatMap(([way, count]) => Array<Way>(count).fill(way as Way));
for (let i = schedule.length - 1, seed = 7; i > 0; i--) {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  const j = seed % (i + 1);
  [schedule[i], schedule[j]] = [schedule[j]!, schedule[i]!];
}

const base = patternBytes(256 << 10, 1);
const HEADER = 8;
const requestLength = (id: number) => HEADER + 1 + ((id * 7919) % 3000);
const answerLength = (id: number) => 1 + ((id * 104729) % 5000);
const content = (id: number, answer: boolean, length: number) => {
  const at = (Math.imul(id, 2654435761) + (answer ? 77_777 : 0)) >>> 0;
  return base.subarray(at % (base.length - 16_384), (at % (base.length - 16_384)) + length);
};
function request(id: number, way: Way): Uint8Array {
  const bytes = content(id, false, requestLength(id)).slice();
  const view = new DataView(bytes.buffer);
  view.setUint32(0, id);
  view.setUint32(4, Object.keys(ways).indexOf(way));
  return bytes;
}
const wayNames = Object.keys(ways) as Way[];

let poller: Poller;
let listener: TcpListener;
let listenFd = -1;
let port = 0;
let refusingPort = 0;
/** A listener whose queue is full: the kernel drops every further SYN. */
let deafFd = -1;
let deafPort = 0;
const deafCallers: TcpChannel[] = [];
let liveServers = 0;
const faults: string[] = [];
const fault = (id: number, way: Way | undefined, what: string) => {
  if (faults.length < 20) faults.push(`connection ${id} (${way}): ${what}`);
};

/** Checks that bytes are the ones of connection `id`, at this position. */
function check(id: number, way: Way, answer: boolean, at: number, bytes: Uint8Array): void {
  const whole = answer ? content(id, true, answerLength(id)) : request(id, way);
  if (Buffer.compare(whole.subarray(at, at + bytes.length), bytes) !== 0) {
    fault(id, way, `foreign bytes at ${at} of the ${answer ? 'answer' : 'request'}`);
  }
}

function serve(channel: TcpChannel): void {
  liveServers++;
  let id = -1;
  let way: Way | undefined;
  let received = 0;
  let early = Buffer.alloc(0);
  const answer = () => channel.write(content(id, true, answerLength(id)));
  const onBytes = (bytes: Uint8Array) => {
    if (way === 'pending-reset') return;
    check(id, way!, false, received, bytes);
    received += bytes.length;
    if (way === 'server-reset' && received > HEADER) channel.reset();
    else if (way === 'client-reset') answer();
    else if (way === 'server-ends-first' && received === requestLength(id)) {
      answer();
      channel.end();
    } else if (way === 'unread-data') channel.pause();
    else if (way === 'detached' && received === requestLength(id)) {
      channel.write(content(id, true, answerLength(id)));
      const fd = channel.detach();
      if (fd === undefined) return fault(id, way, 'not detached');
      liveServers--;
      closeDescriptor(fd);
    }
  };
  channel.handler = {
    data(bytes) {
      if (id >= 0) return onBytes(bytes);
      early = Buffer.concat([early, bytes]);
      if (early.length < HEADER) return;
      id = early.readUInt32BE(0);
      way = wayNames[early.readUInt32BE(4)];
      onBytes(early);
    },
    end() {
      if (way === 'clean') {
        if (received !== requestLength(id)) fault(id, way, `request of ${received} bytes`);
        answer();
      }
      channel.end();
    },
    drain() {},
    close(why) {
      liveServers--;
      const expected: readonly string[] =
        way === 'clean' || way === 'server-ends-first' ? ['done'] : ['done', 'reset', 'local'];
      if (!expected.includes(why.reason)) fault(id, way, `server closed: ${why.reason} ${why.detail}`);
    },
  };
  channel.resume();
}

const expectedClose: Record<Way, readonly ChannelClose['reason'][]> = {
  clean: ['done'],
  'server-ends-first': ['done'],
  'idle-end': ['done'],
  'client-reset': ['local'],
  'server-reset': ['reset'],
  'server-reset-at-once': ['reset'],
  'client-reset-at-once': ['local'],
  refused: ['refused'],
  'unread-data': ['local'],
  'pending-reset': ['local'],
  detached: ['done'],
  timeout: ['timeout'],
};

const bulk = patternBytes(5 << 20, 3);

function dial(id: number, way: Way, closed: () => void): void {
  const ip = parseIp(`127.0.0.${2 + (id % 200)}`) as Ip;
  const to = way === 'refused' ? refusingPort : way === 'timeout' ? deafPort : port;
  const timeoutMs = way === 'timeout' ? 300 : 20_000;
  const options = way === 'server-reset-at-once' ? { timeoutMs, localIp: '127.0.1.1' as Ip } : { timeoutMs };
  const target = way === 'timeout' ? { ip: '127.0.0.1' as Ip, port: to } : { ip, port: to };
  const channel = TcpChannel.connect(poller, target, options);
  let received = 0;
  let ended = false;
  const handler: ChannelHandler = {
    open() {
      if (way === 'refused' || way === 'timeout' || way === 'client-reset-at-once') fault(id, way, 'opened');
      if (way === 'pending-reset') {
        channel.write(request(id, way));
        channel.write(bulk);
        if (channel.pendingBytes === 0) fault(id, way, 'nothing pending');
        channel.reset();
      } else if (way === 'unread-data') {
        channel.write(request(id, way));
        channel.reset();
      }
    },
    data(bytes) {
      check(id, way, true, received, bytes);
      received += bytes.length;
      if (way === 'client-reset') channel.reset();
    },
    end() {
      ended = true;
      if (way === 'server-ends-first' || way === 'detached') channel.end();
    },
    drain() {},
    close(why) {
      if (!expectedClose[way].includes(why.reason))
        fault(id, way, `client closed: ${why.reason} ${why.detail}`);
      const whole = way === 'clean' || way === 'server-ends-first' || way === 'detached';
      if (whole && received !== answerLength(id)) fault(id, way, `answer of ${received} bytes`);
      if (why.reason !== 'done' && ended) fault(id, way, 'an end before the reset');
      if ((way === 'refused' || way === 'timeout') && why.delivered) fault(id, way, 'delivered');
      closed();
    },
  };
  channel.handler = handler;
  channel.resume();
  if (way === 'client-reset-at-once') channel.reset();
  else if (way === 'clean') {
    // Before it is open: kept, and sent with the opening; in two pieces.
    const bytes = request(id, way);
    channel.write(bytes.subarray(0, 5));
    channel.write(bytes.subarray(5));
    channel.end();
  } else if (way === 'idle-end') channel.end();
  else if (way !== 'pending-reset' && way !== 'unread-data' && way !== 'server-reset-at-once') {
    channel.write(request(id, way));
  }
}

async function run(first: number, count: number): Promise<Map<Way, number>> {
  const done = new Map<Way, number>();
  await new Promise<void>((resolve, reject) => {
    let next = first;
    let live = 0;
    const deadline = setTimeout(
      () => reject(new Error(`${live} of ${count} connections never closed; ${faults.join('; ')}`)),
      DEADLINE_MS,
    );
    const more = () => {
      while (live < CONCURRENCY && next < first + count) {
        const id = next++;
        const way = schedule[id % schedule.length]!;
        live++;
        dial(id, way, () => {
          done.set(way, (done.get(way) ?? 0) + 1);
          live--;
          setImmediate(more);
        });
      }
      if (live > 0 || next < first + count) return;
      clearTimeout(deadline);
      resolve();
    };
    more();
  });
  const end = Date.now() + 5000;
  while (liveServers > 0 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 5));
  return done;
}

beforeAll(async () => {
  raiseDescriptorLimit();
  poller = new Poller();
  listenFd = createListeningSocket({ ip: '0.0.0.0' as Ip, port: 0, backlog: 4096 });
  port = localEndpointOf(listenFd)!.port;
  listener = new TcpListener(poller, listenFd, {
    acceptBatch: 64,
    onConnection(channel) {
      // This client never says who it is: it is known by its address.
      if (channel.remoteEndpoint?.ip === '127.0.1.1') channel.reset();
      else serve(channel);
    },
  });
  const refusing = createListeningSocket({ ip: '127.0.0.1' as Ip, port: 0, backlog: 1 });
  refusingPort = localEndpointOf(refusing)!.port;
  closeDescriptor(refusing);
  deafFd = createListeningSocket({ ip: '127.0.0.1' as Ip, port: 0, backlog: 1 });
  deafPort = localEndpointOf(deafFd)!.port;
  await new Promise<void>((resolve) => {
    let opened = 0;
    for (let i = 0; i < 2; i++) {
      const caller = TcpChannel.connect(
        poller,
        { ip: '127.0.0.1' as Ip, port: deafPort },
        { timeoutMs: 5000 },
      );
      caller.handler = {
        open: () => ++opened === 2 && resolve(),
        data() {},
        end() {},
        drain() {},
        close() {},
      };
      deafCallers.push(caller);
    }
  });
});

afterAll(() => {
  for (const caller of deafCallers) caller.reset();
  listener.close();
  closeDescriptor(deafFd);
  poller.close();
});

test(`${CONNECTIONS} connections, broken in every way, twice`, { timeout: 3 * DEADLINE_MS }, async () => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const settledRss = async () => {
    for (let i = 0; i < 5; i++) {
      gc();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return process.memoryUsage().rss;
  };
  await run(0, 1000); // whatever is made once has been made
  const descriptors = countDescriptors();
  const rss: number[] = [];
  for (let round = 0; round < 2; round++) {
    const done = await run(1_000_000 * (round + 1), CONNECTIONS);
    expect(faults).toEqual([]);
    expect(liveServers).toBe(0);
    for (const [way, perThousand] of Object.entries(ways)) {
      expect(done.get(way as Way), way).toBe((perThousand * CONNECTIONS) / 1000);
    }
    expect(countDescriptors()).toBe(descriptors);
    expect(poller.heldBytes).toBe(0);
    rss.push(await settledRss());
  }
  expect(rss[1]! / rss[0]!, `RSS ${rss.map((bytes) => bytes >> 20).join(' → ')} MiB`).toBeLessThan(1.05);
});
