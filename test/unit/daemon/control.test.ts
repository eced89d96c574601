import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SourcePorts } from '../../../src/caller/source-ports.ts';
import {
  ControlChannel,
  MAX_CONTROL_MESSAGE,
  type ToSupervisor,
  type ToWorker,
} from '../../../src/daemon/control.ts';
import { VitalCounts } from '../../../src/daemon/guard/vitals.ts';
import { type DataPlane, Worker } from '../../../src/daemon/worker/worker.ts';
import type { ServiceName } from '../../../src/model/service.ts';
import type { Claim, Snapshot } from '../../../src/model/snapshot.ts';

let directory: string;
let ends: [Socket, Socket];

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'mesh-control-'));
  const path = join(directory, 's');
  const server = createServer().listen(path);
  await once(server, 'listening');
  const client = connect(path);
  const [accepted] = (await once(server, 'connection')) as [Socket];
  server.close();
  ends = [client, accepted];
});

afterEach(() => {
  for (const end of ends) end.destroy();
  rmSync(directory, { recursive: true });
});

/** Resolves when `ready` is true; looks again after every message. */
function collector<T>() {
  const items: T[] = [];
  let wake = () => {};
  return {
    items,
    take: (item: T) => {
      items.push(item);
      wake();
    },
    async until(ready: (items: readonly T[]) => boolean): Promise<void> {
      while (!ready(items))
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    },
  };
}

describe('ControlChannel', () => {
  it('carries messages whole, however the bytes are cut', async () => {
    const got = collector<ToWorker>();
    new ControlChannel<ToSupervisor, ToWorker>(ends[1], got.take, () => {});
    const { Packr } = await import('msgpackr');
    const bodies = [1, 2, 3].map((id) => new Packr({ useRecords: false }).pack({ t: 'ping', id }));
    const bytes = Buffer.concat(
      bodies.flatMap((body) => {
        const header = Buffer.alloc(4);
        header.writeUInt32LE(body.length);
        return [header, body];
      }),
    );
    for (const byte of bytes) {
      ends[0].write(Buffer.of(byte));
      await new Promise(setImmediate);
    }
    await got.until((items) => items.length === 3);
    expect(got.items).toEqual([1, 2, 3].map((id) => ({ t: 'ping', id })));
  });

  it('ends the conversation over a message beyond the bound', async () => {
    const closed = new Promise<Error | undefined>((resolve) => {
      new ControlChannel<ToSupervisor, ToWorker>(ends[1], () => {}, resolve);
    });
    const header = Buffer.alloc(4);
    header.writeUInt32LE(MAX_CONTROL_MESSAGE + 1);
    ends[0].on('error', () => {});
    ends[0].write(header);
    expect((await closed)?.message).toContain('control message');
  });
});

describe('Worker', () => {
  function plane() {
    const calls: string[] = [];
    const made: DataPlane = {
      configure: () => calls.push('configure'),
      use: (snapshot: Snapshot) => calls.push(`use ${snapshot.version} with ${snapshot.services.size}`),
      serve: () => calls.push('serve'),
      vitals: new VitalCounts(),
      measured: () => {},
      sourcePorts: new SourcePorts(),
      followOutages: () => {},
      list: (list, limit) => ({ items: [list], total: limit }),
      metrics: () => 1,
      reopenLogs: () => calls.push('reopen'),
      drain: async (_timeoutMs: number, letGo: boolean) => {
        calls.push(letGo ? 'drain and let go' : 'drain');
        return 2;
      },
      cut: () => calls.push('cut'),
    };
    return { calls, made };
  }

  const settings = {
    config: {
      capture: { mode: 'all' },
      telemetry: { flushInterval: 3_600_000 },
      daemon: { drainTimeout: 5, orphanTimeout: 5, runtimeDirectory: '/nowhere' },
    },
  } as never;
  const origin = (adoptable: boolean) => ({
    ...{ build: '1.0.0+a', index: 2, epoch: '7', listeners: [11, 12], adoptable },
  });
  const delta = (base: number) => ({ base, services: [], removedServices: [], nodes: [], removedNodes: [] });

  it('applies deltas in order, acknowledges each, serves when all are there, answers, and ends after a drain', async () => {
    const { calls, made } = plane();
    const exited = new Promise<number>((resolve) => {
      new Worker(ends[1], origin(false), () => made, resolve);
    });
    const got = collector<ToSupervisor>();
    const answers = (message: ToSupervisor) => {
      if (message.t !== 'vitals') got.take(message);
    };
    const supervisor = new ControlChannel<ToWorker, ToSupervisor>(ends[0], answers, () => {});
    supervisor.send({ t: 'settings', settings });
    supervisor.send({ t: 'delta', delta: delta(40), first: true, more: false });
    supervisor.send({ t: 'delta', delta: delta(41), first: false, more: false });
    supervisor.send({ t: 'synced' });
    supervisor.send({ t: 'ping', id: 7 });
    supervisor.send({ t: 'list', id: 8, list: 'tunnels', limit: 3 });
    await got.until((items) => items.length === 5);
    expect(got.items).toEqual([
      { t: 'ack', version: 41 },
      { t: 'ack', version: 42 },
      { t: 'ready' },
      { t: 'pong', id: 7 },
      { t: 'list', id: 8, listing: { items: ['tunnels'], total: 3 } },
    ]);
    supervisor.send({ t: 'drain', timeoutMs: 5, letGo: false });
    expect(await exited).toBe(0);
    await got.until((items) => items.length === 7);
    expect(got.items.slice(5)).toEqual([
      { t: 'metrics', delta: 1 },
      { t: 'drained', cut: 2 },
    ]);
    expect(calls).toEqual(['use 41 with 0', 'use 42 with 0', 'serve', 'drain']);
  });

  it('says how it is from when it serves until it drains', async () => {
    const { made } = plane();
    const exited = new Promise<number>((resolve) => {
      new Worker(ends[1], origin(false), () => made, resolve);
    });
    const got = collector<ToSupervisor>();
    const supervisor = new ControlChannel<ToWorker, ToSupervisor>(ends[0], got.take, () => {});
    supervisor.send({ t: 'settings', settings });
    supervisor.send({ t: 'synced' });
    await got.until((items) => items.some(({ t }) => t === 'vitals'));
    const first = got.items.findIndex(({ t }) => t === 'vitals');
    expect(got.items.slice(0, first).map(({ t }) => t)).toContain('ready');
    made.vitals.taken = 3;
    made.vitals.failed = 2;
    await got.until((items) => items.some((one) => one.t === 'vitals' && one.vitals.taken === 3));
    const told = got.items.flatMap((one) => (one.t === 'vitals' ? [one.vitals] : []));
    expect(told.at(-1)).toMatchObject({ taken: 3, failed: 2 });
    expect(told.at(-1)!.descriptors).toBeGreaterThan(3);
    expect(told.at(-1)!.descriptorLimit).toBeGreaterThan(told.at(-1)!.descriptors);
    // What was told is not told again.
    const so = told.length;
    await got.until((items) => items.filter(({ t }) => t === 'vitals').length > so);
    expect(got.items.findLast((one) => one.t === 'vitals')).toMatchObject({
      vitals: { taken: 0, failed: 0 },
    });
    supervisor.send({ t: 'drain', timeoutMs: 5, letGo: false });
    expect(await exited).toBe(0);
    await got.until((items) => items.at(-1)?.t === 'drained');
  });

  it('says what it holds for dead once it serves, and whenever that changes', async () => {
    const { made } = plane();
    const web: Claim = { service: 'web' as ServiceName };
    let listener: (down: readonly Claim[]) => void = () => {};
    let followed = 0;
    const follows: DataPlane = {
      ...made,
      followOutages: (told) => {
        followed++;
        listener = told;
        told([web]);
      },
    };
    const exited = new Promise<number>((resolve) => {
      new Worker(ends[1], origin(false), () => follows, resolve);
    });
    const got = collector<ToSupervisor>();
    const answers = (message: ToSupervisor) => {
      if (message.t === 'outages' || message.t === 'drained') got.take(message);
    };
    const supervisor = new ControlChannel<ToWorker, ToSupervisor>(ends[0], answers, () => {});
    supervisor.send({ t: 'settings', settings });
    supervisor.send({ t: 'delta', delta: delta(40), first: true, more: false });
    supervisor.send({ t: 'synced' });
    await got.until((items) => items.length === 1);
    listener([]);
    supervisor.send({ t: 'delta', delta: delta(41), first: false, more: false });
    supervisor.send({ t: 'drain', timeoutMs: 5, letGo: false });
    expect(await exited).toBe(0);
    await got.until((items) => items.at(-1)?.t === 'drained');
    expect(got.items.slice(0, -1)).toEqual([
      { t: 'outages', down: [web] },
      { t: 'outages', down: [] },
    ]);
    expect(followed).toBe(1);
  });

  it('drains and ends when its supervisor is gone', async () => {
    const { calls, made } = plane();
    const exited = new Promise<number>((resolve) => {
      new Worker(ends[1], origin(false), () => made, resolve);
    });
    const supervisor = new ControlChannel<ToWorker, ToSupervisor>(
      ends[0],
      () => {},
      () => {},
    );
    supervisor.send({ t: 'settings', settings });
    supervisor.send({ t: 'synced' });
    supervisor.finish(() => ends[0].destroy());
    expect(await exited).toBe(0);
    expect(calls).toEqual(['serve', 'drain and let go']);
  });

  it('serves on when it may, is adopted, and routes by what it knew until all of the new is there', async () => {
    const { calls, made } = plane();
    let code: number | undefined;
    const exited = new Promise<void>((resolve) => {
      new Worker(
        ends[1],
        origin(true),
        () => made,
        (with_) => {
          code = with_;
          resolve();
        },
      );
    });
    const patient = (orphanTimeout: number) =>
      ({
        config: {
          capture: { mode: 'all' },
          telemetry: { flushInterval: 3_600_000 },
          daemon: { drainTimeout: 5, orphanTimeout, runtimeDirectory: directory },
        },
      }) as never;
    const first = new ControlChannel<ToWorker, ToSupervisor>(
      ends[0],
      () => {},
      () => {},
    );
    first.send({ t: 'settings', settings: patient(60_000) });
    first.send({ t: 'delta', delta: delta(40), first: true, more: false });
    first.send({ t: 'synced' });
    first.finish(() => ends[0].destroy());
    const server = createServer().listen(join(directory, 'workers.sock'));
    const [socket] = (await once(server, 'connection')) as [Socket];
    const got = collector<ToSupervisor>();
    const second = new ControlChannel<ToWorker, ToSupervisor>(
      socket,
      (message) => {
        if (message.t !== 'vitals') got.take(message);
      },
      () => {},
    );
    await got.until((items) => items.length === 1);
    const { adoptable: _, ...said } = origin(true);
    expect(got.items[0]).toMatchObject({ t: 'hello', hello: { ...said, draining: false } });
    second.send({ t: 'settings', settings: patient(20) });
    second.send({ t: 'delta', delta: delta(70), first: true, more: true });
    second.send({ t: 'delta', delta: delta(71), first: false, more: true });
    second.send({ t: 'delta', delta: delta(72), first: false, more: false });
    await got.until((items) => items.length === 2);
    expect(got.items[1]).toEqual({ t: 'ack', version: 73 });
    expect(calls).toEqual(['use 41 with 0', 'serve', 'configure', 'use 73 with 0']);
    expect(code).toBeUndefined();
    // Nobody comes for so long: it lets go and ends.
    server.close();
    second.close();
    await exited;
    expect(code).toBe(0);
    expect(calls.at(-1)).toBe('drain and let go');
  });

  it('waits when it was told that another one comes, and can be told to end sooner', async () => {
    const { calls, made } = plane();
    let end: (cut: number) => void = () => {};
    made.drain = () =>
      new Promise((resolve) => {
        end = resolve;
      });
    made.cut = () => {
      calls.push('cut');
      end(1);
    };
    const exited = new Promise<number>((resolve) => {
      new Worker(ends[1], origin(false), () => made, resolve);
    });
    const supervisor = new ControlChannel<ToWorker, ToSupervisor>(
      ends[0],
      () => {},
      () => {},
    );
    supervisor.send({
      t: 'settings',
      settings: {
        config: {
          capture: { mode: 'all' },
          telemetry: { flushInterval: 3_600_000 },
          daemon: { drainTimeout: 5, orphanTimeout: 60_000, runtimeDirectory: directory },
        },
      } as never,
    });
    supervisor.send({ t: 'synced' });
    supervisor.send({ t: 'await' });
    supervisor.finish(() => ends[0].destroy());
    const server = createServer().listen(join(directory, 'workers.sock'));
    const [socket] = (await once(server, 'connection')) as [Socket];
    server.close();
    const next = new ControlChannel<ToWorker, ToSupervisor>(
      socket,
      () => {},
      () => {},
    );
    expect(calls).toEqual(['serve']);
    next.send({ t: 'drain', timeoutMs: 3_600_000, letGo: true });
    next.send({ t: 'drain', timeoutMs: 20, letGo: true });
    expect(await exited).toBe(0);
    expect(calls).toEqual(['serve', 'cut']);
    next.close();
  });
});
