import { EventEmitter, once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ControlChannel } from '../../../src/daemon/control/channel.ts';
import { fromSupervisor } from '../../../src/daemon/control/from-supervisor.ts';
import type { ToSupervisor, ToWorker } from '../../../src/daemon/control/messages.ts';
import { ChildLife } from '../../../src/daemon/workers/worker-life.ts';
import { type WorkerEvents, WorkerProcess } from '../../../src/daemon/workers/worker-process.ts';
import { WorkerSet } from '../../../src/daemon/workers/worker-set.ts';
import { emptyPolicySet, type PolicySet } from '../../../src/model/policy.ts';
import { connection, settings } from './control/conversation.ts';

/** A worker that is no process: what it was told, and what the test lets it say. */
class FakeWorker extends EventEmitter {
  readonly pid: number;
  readonly told: ToWorker[] = [];
  readonly control: ControlChannel<ToSupervisor, ToWorker>;
  /** Answers pings while true. */
  alive = true;

  constructor(pid: number, socket: Socket) {
    super();
    this.pid = pid;
    this.control = new ControlChannel<ToSupervisor, ToWorker>(
      socket,
      fromSupervisor,
      (message) => {
        this.told.push(message);
        if (message.t === 'ping' && this.alive) this.control.send({ t: 'pong', id: message.id });
        this.emit('told');
      },
      () => {},
    );
  }

  unref(): void {}

  kill(signal: string): boolean {
    setImmediate(() => this.emit('exit', null, signal));
    return true;
  }

  async until(condition: (told: readonly ToWorker[]) => boolean): Promise<void> {
    while (!condition(this.told)) await once(this, 'told');
  }
}

const delta = { base: 0, services: [], removedServices: [], nodes: [], removedNodes: [] };
let directory: string;
let server: Server;
let workers: FakeWorker[];
let log: string[];
let known: boolean;
let policies: PolicySet;
let silence: number | undefined;
let set: WorkerSet;

/** A set whose workers are fakes; resolves when `size` of them were started. */
async function start(size: number, hangTimeoutMs = 60_000, adopted = false): Promise<void> {
  const path = join(directory, 'control');
  server = createServer().listen(path);
  await once(server, 'listening');
  const sockets: Socket[] = [];
  server.on('connection', (socket) => sockets.push(socket));
  const pairs: [Socket, Socket][] = [];
  for (let i = 0; i < size + 2; i++) {
    const near = connect(path);
    await once(server, 'connection');
    pairs.push([near, sockets.at(-1)!]);
  }
  set = new WorkerSet({
    size,
    hangTimeoutMs,
    heartbeatMs: 5,
    start: (index: number, events: WorkerEvents) => {
      const [near, far] = pairs.shift()!;
      const fake = new FakeWorker(1000 + workers.length, far);
      workers.push(fake);
      const state = adopted ? 'serving' : 'starting';
      return new WorkerProcess(index, new ChildLife(fake as never), near, hangTimeoutMs, events, state);
    },
    known: () => known,
    full: () => [delta],
    settings: () => settings(),
    policies: () => policies,
    onAcknowledged: (version) => log.push(`all have ${version}`),
    onMetrics: () => {},
    onMeasured: () => {},
    onOutages: () => {},
    onEvent: (index, { text }) => log.push(`${index} event: ${text}`),
    onBeat: (silentMs) => {
      silence = silentMs;
    },
    onTransition: (index, _pid, from, to) => log.push(`${index}: ${from} → ${to}`),
    onExit: (index, _pid, why) => log.push(`${index} exit: ${why.replace(/\d+ ms/, 'N ms')}`),
  });
}

async function logged(text: string): Promise<void> {
  while (!log.includes(text)) await new Promise(setImmediate);
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mesh-workers-'));
  workers = [];
  log = [];
  known = true;
  policies = { ...emptyPolicySet, version: 3 };
});

afterEach(async () => {
  const drained = set.drain(0, 0);
  for (const worker of workers) worker.emit('exit', 0, null);
  await drained;
  server.close();
  rmSync(directory, { recursive: true });
});

it('tells every worker everything, and an acknowledgement counts once all have given it', async () => {
  await start(2);
  set.publish({ ...delta, base: 1 });
  for (const worker of workers)
    await worker.until((told) => told.filter(({ t }) => t === 'delta').length === 2);
  expect(workers[0]!.told.slice(0, 5).map(({ t }) => t)).toEqual([
    ...['settings', 'policies', 'delta', 'synced', 'delta'],
  ]);
  workers[0]!.control.send({ t: 'ack', version: 2 });
  workers[1]!.control.send({ t: 'ack', version: 1 });
  await logged('all have 1');
  workers[1]!.control.send({ t: 'ack', version: 2 });
  await logged('all have 2');
  for (const worker of workers) worker.control.send({ t: 'ready' });
  await logged('1: syncing → serving');
  expect(set.serving).toBe(2);
});

it('leaves an adopted worker what it knows until there is something to know', async () => {
  known = false;
  await start(1, 60_000, true);
  expect(set.serving).toBe(1);
  set.publish({ ...delta, base: 1 });
  await workers[0]!.until((told) => told.some(({ t }) => t === 'ping'));
  known = true;
  set.catchUp();
  set.publish({ ...delta, base: 2 });
  await workers[0]!.until((told) => told.filter(({ t }) => t === 'delta').length === 2);
  const told = workers[0]!.told.filter(({ t }) => t !== 'ping');
  expect(told).toMatchObject([
    { t: 'settings' },
    { t: 'policies', policies: { version: 3 } },
    { t: 'delta', first: true, more: false, delta: { base: 0 } },
    { t: 'delta', first: false, delta: { base: 2 } },
  ]);
});

it('leaves its workers to themselves when the agent stops', async () => {
  await start(2);
  await set.leave(4000);
  for (const worker of workers)
    await worker.until((told) =>
      told.some((one) => one.t === 'drain' && one.letGo && one.timeoutMs === 4000),
    );
  expect(log.filter((line) => line.includes('draining'))).toHaveLength(2);
});

it('replaces a worker that died, with the whole catalogue', async () => {
  await start(1);
  workers[0]!.emit('exit', null, 'SIGSEGV');
  await logged('0 exit: ended by SIGSEGV');
  while (workers.length < 2) await new Promise(setImmediate);
  await workers[1]!.until((told) => told.some(({ t }) => t === 'synced'));
  expect(set.restarts(0)).toBe(1);
});

it('shows a worker that ended as gone until its replacement is there: nobody takes the others for all there are', async () => {
  await start(2);
  for (const worker of workers) worker.control.send({ t: 'ready' });
  await logged('0: syncing → serving');
  await logged('1: syncing → serving');
  workers[0]!.emit('exit', null, 'SIGKILL');
  await logged('0 exit: ended by SIGKILL');
  const places = () => set.places.map(({ index, pid, state }) => ({ index, pid, state }));
  expect(places()).toEqual([
    { index: 0, pid: 1000, state: 'gone' },
    { index: 1, pid: 1001, state: 'serving' },
  ]);
  while (workers.length < 3) await new Promise(setImmediate);
  expect(places()).toEqual([
    { index: 0, pid: 1002, state: 'syncing' },
    { index: 1, pid: 1001, state: 'serving' },
  ]);
});

it('ends and replaces a worker that gives no sign of life', async () => {
  await start(1, 50);
  workers[0]!.control.send({ t: 'ready' });
  await logged('0: syncing → serving');
  workers[0]!.alive = false;
  await logged('0 exit: ended by SIGKILL: no sign of life for N ms');
  while (workers.length < 2) await new Promise(setImmediate);
});

it('tells how long all that serve have been silent: one that speaks is enough', async () => {
  await start(2);
  await workers[0]!.until((told) => told.some(({ t }) => t === 'ping'));
  expect(silence).toBeUndefined();
  for (const worker of workers) worker.control.send({ t: 'ready' });
  await logged('0: syncing → serving');
  await logged('1: syncing → serving');
  workers[0]!.alive = false;
  const since = performance.now();
  while (performance.now() - since < 200 || (silence ?? 0) >= 100) await new Promise(setImmediate);
  workers[1]!.alive = false;
  while ((silence ?? 0) < 100) await new Promise(setImmediate);
  workers[0]!.alive = true;
  while ((silence ?? 0) >= 100) await new Promise(setImmediate);
});

it('blames no worker for a time in which this process was stopped itself', async () => {
  await start(1, 400);
  workers[0]!.control.send({ t: 'ready' });
  await logged('0: syncing → serving');
  const until = performance.now() + 1000;
  while (performance.now() < until); // as SIGSTOP would
  const asked = workers[0]!.told.length;
  await workers[0]!.until((told) => told.length > asked + 3);
  expect(log.filter((line) => line.includes('exit'))).toEqual([]);
});

it('asks a worker, and tells when it is gone instead of answering', async () => {
  await start(1);
  const [worker] = [...{ [Symbol.iterator]: () => set[Symbol.iterator]() }];
  const answer = worker!.list('connections', 5);
  await workers[0]!.until((told) => told.some(({ t }) => t === 'list'));
  const question = workers[0]!.told.find((message) => message.t === 'list')!;
  workers[0]!.control.send({ t: 'list', id: question.id, listing: { items: [connection], total: 7 } });
  expect(await answer).toEqual({ items: [connection], total: 7 });
  const unanswered = worker!.list('tunnels', 5);
  workers[0]!.emit('exit', 1, null);
  await expect(unanswered).rejects.toThrow(/gone: exited with 1/);
});

it('takes an answer that is none for nonsense', async () => {
  await start(1);
  const [worker] = [...{ [Symbol.iterator]: () => set[Symbol.iterator]() }];
  const answer = worker!.list('connections', 1);
  answer.catch(() => undefined);
  await workers[0]!.until((told) => told.some(({ t }) => t === 'list'));
  const { id } = workers[0]!.told.find((message) => message.t === 'list')!;
  const listing = { items: [connection, connection], total: 2 };
  workers[0]!.control.send({ t: 'list', id, listing });
  await expect(answer).rejects.toMatchObject({ code: 'protocol' });
  await logged('0 exit: ended by SIGKILL: it was cut off: its list of connections is none');
});

it.each([
  ['claims', { t: 'outages', down: 'all' }],
  ['counts', { t: 'metrics', delta: { name: 'x' } }],
  ['vital signs', { t: 'vitals', vitals: { delayMs: 'long' } }],
  ['connections', { t: 'source-ports', id: 1, connections: [null] }],
  ['kind', { t: 7 }],
])('cuts off and replaces a worker that says nonsense: %s', async (_what, message) => {
  await start(1);
  workers[0]!.control.send(message as never);
  while (!log.some((line) => line.startsWith('0 exit: ended by SIGKILL: it was cut off: control message')))
    await new Promise(setImmediate);
  while (workers.length < 2) await new Promise(setImmediate);
  expect(set.restarts(0)).toBe(1);
});

it('does not count an acknowledgement of what it never said', async () => {
  await start(1);
  workers[0]!.control.send({ t: 'ack', version: 1_000 });
  workers[0]!.control.send({ t: 'ack', version: 1 });
  await logged('all have 1');
  expect(log).not.toContain('all have 1000');
});

it('gives every worker the policies before it serves, and others when they change', async () => {
  await start(2);
  for (const worker of workers) await worker.until((told) => told.some(({ t }) => t === 'synced'));
  set.usePolicies({ ...policies, version: 4 });
  for (const worker of workers) {
    await worker.until((told) => told.filter(({ t }) => t === 'policies').length === 2);
    const kinds = worker.told.map(({ t }) => t);
    expect(kinds.indexOf('policies')).toBeLessThan(kinds.indexOf('synced'));
    worker.control.send({ t: 'policies', version: 4 });
  }
  while ([...set].some(({ policyVersion }) => policyVersion !== 4)) await new Promise(setImmediate);
});
