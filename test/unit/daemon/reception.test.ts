import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ControlChannel } from '../../../src/daemon/control/channel.ts';
import { fromSupervisor } from '../../../src/daemon/control/from-supervisor.ts';
import type { ToSupervisor, ToWorker } from '../../../src/daemon/control/messages.ts';
import type { WorkerHello } from '../../../src/daemon/succession/hello.ts';
import { type Arrival, Reception } from '../../../src/daemon/succession/reception.ts';
import { SupervisorSearch, workersSocket } from '../../../src/daemon/succession/supervisor-search.ts';
import { processStarted, readRoster, stillRuns, writeRoster } from '../../../src/daemon/workers/roster.ts';
import { AdoptedLife } from '../../../src/daemon/workers/worker-life.ts';
import { Poller } from '../../../src/io/poller.ts';

const hello: WorkerHello = {
  ...{ build: '1+a', fingerprint: 'f', index: 0, epoch: '1', listeners: [], draining: false },
  startedAt: 1,
};

let directory: string;
let poller: Poller;
let reception: Reception;
let sockets: Socket[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mesh-reception-'));
  poller = new Poller();
  reception = new Reception(poller, directory, pino({ level: 'silent' }));
  sockets = [];
});
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  reception.close();
  poller.close();
  rmSync(directory, { recursive: true });
});

/** A worker that comes, as far as a supervisor sees it. */
function come(told: ToWorker[] = []): ControlChannel<ToSupervisor, ToWorker> {
  const socket = connect(workersSocket(directory));
  sockets.push(socket);
  return new ControlChannel<ToSupervisor, ToWorker>(
    socket,
    fromSupervisor,
    (message) => told.push(message),
    () => {},
  );
}

const here = () => ({ pid: process.pid, started: processStarted(process.pid)! });

describe('Reception', () => {
  it('gathers those who are expected, without waiting longer than that', async () => {
    const gathered = reception.gather([here()], 10_000);
    const told: ToWorker[] = [];
    come(told).send({ t: 'hello', hello });
    const { arrivals, silent } = await gathered;
    expect(arrivals).toMatchObject([{ pid: process.pid, hello }]);
    expect(silent).toEqual([]);
    arrivals[0]!.link.send({ t: 'ping', id: 4 });
    while (told.length === 0) await new Promise(setImmediate);
    expect(told).toEqual([{ t: 'ping', id: 4 }]);
  });

  it('tells who runs and does not come', async () => {
    expect((await reception.gather([here()], 30)).silent).toEqual([here()]);
  });

  it('does not wait for those who have ended', async () => {
    const child = spawn('/bin/true');
    const gone = { pid: child.pid!, started: processStarted(child.pid!) ?? 'never' };
    await once(child, 'exit');
    expect(await reception.gather([gone], 10_000)).toEqual({ arrivals: [], silent: [] });
  });

  it('hangs up on whoever says anything else first', async () => {
    come().send({ t: 'pong', id: 1 });
    await once(sockets[0]!, 'close');
    expect((await reception.gather([], 0)).arrivals).toEqual([]);
  });

  it('hands on who comes later, and those who waited', async () => {
    const arrived: Arrival[] = [];
    come().send({ t: 'hello', hello });
    while ((await reception.gather([here()], 0)).silent.length > 0 && arrived.length === 0) {
      reception.follow((arrival) => arrived.push(arrival));
      await new Promise(setImmediate);
    }
    come().send({ t: 'hello', hello: { ...hello, index: 3 } });
    while (!arrived.some((one) => one.hello.index === 3)) await new Promise(setImmediate);
  });
});

describe('SupervisorSearch', () => {
  it('finds a supervisor of the same user, and not before there is one', async () => {
    reception.close();
    const found: Socket[] = [];
    const search = new SupervisorSearch((socket) => found.push(socket));
    search.start(join(directory, 'nowhere'), false);
    search.start(directory, false);
    await new Promise((resolve) => setTimeout(resolve, 120));
    expect(found).toEqual([]);
    reception = new Reception(poller, directory, pino({ level: 'silent' }));
    while (found.length === 0) await new Promise(setImmediate);
    sockets.push(...found);
  });
});

describe('roster', () => {
  it('names those that run, and no other process with their number', () => {
    writeRoster(directory, [process.pid, 4_194_303]);
    expect(readRoster(directory)).toEqual([here()]);
    expect(stillRuns({ pid: process.pid, started: '1' })).toBe(false);
  });

  it.each(['', '{', 'null', '[1,"x",{"pid":1,"started":"1"},{"pid":"2"}]', 'x'.repeat(100_000)])(
    'has nobody in a damaged file (%#)',
    (text) => {
      writeFileSync(join(directory, 'workers.json'), text);
      expect(readRoster(directory)).toEqual([]);
    },
  );
});

describe('AdoptedLife', () => {
  it('tells the end of a process, whoever started it', async () => {
    // Its parent is gone when it is adopted.
    const shell = spawn('/bin/sh', ['-c', 'sleep 60 >/dev/null 2>&1 & echo $!']);
    const [text] = (await once(shell.stdout, 'data')) as [Buffer];
    const pid = Number(text.toString());
    const life = new AdoptedLife(pid);
    const ended = new Promise<string>((resolve) => life.onEnd(resolve));
    life.kill();
    expect(await ended).toBe('ended');
    expect(processStarted(pid)).toBeUndefined();
  });
});
