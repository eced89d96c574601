import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SourcePorts } from '../../../src/caller/source-ports.ts';
import { ControlChannel } from '../../../src/daemon/control/channel.ts';
import { fromWorker } from '../../../src/daemon/control/from-worker.ts';
import type { ToSupervisor, ToWorker } from '../../../src/daemon/control/messages.ts';
import { VitalCounts } from '../../../src/daemon/guard/vitals.ts';
import { type DataPlane, Worker } from '../../../src/daemon/worker/worker.ts';
import type { ServiceName } from '../../../src/model/service.ts';
import type { Claim, Snapshot } from '../../../src/model/snapshot.ts';
import type { MetricsDelta } from '../../../src/telemetry/counters.ts';
import { type Conversation, collector, conversation, delta, settings } from './control/conversation.ts';

const counted: MetricsDelta = [['mesh_node_connections_total', ['ok'], [1]]];
let talk: Conversation;
let ends: Conversation['ends'];
let directory: string;
beforeEach(async () => {
  talk = await conversation();
  ({ ends, directory } = talk);
});
afterEach(() => talk.close());

describe('Worker', () => {
  function plane() {
    const calls: string[] = [];
    const made: DataPlane = {
      configure: () => calls.push('configure'),
      usePolicies: () => {},
      use: (snapshot: Snapshot) => calls.push(`use ${snapshot.version} with ${snapshot.services.size}`),
      serve: () => calls.push('serve'),
      vitals: new VitalCounts(),
      measured: () => {},
      sourcePorts: new SourcePorts(),
      followEvents: () => {},
      followOutages: () => {},
      list: (list, limit) => ({ items: [list], total: limit }),
      metrics: () => counted,
      reopenLogs: () => calls.push('reopen'),
      drain: async (_timeoutMs: number, letGo: boolean) => {
        calls.push(letGo ? 'drain and let go' : 'drain');
        return 2;
      },
      cut: () => calls.push('cut'),
    };
    return { calls, made };
  }

  const origin = (adoptable: boolean) => ({
    ...{ build: '1.0.0+a', index: 2, epoch: '7', listeners: [11, 12], adoptable },
  });

  it('applies deltas in order, acknowledges each, serves when all are there, answers, and ends after a drain', async () => {
    const { calls, made } = plane();
    const exited = new Promise<number>((resolve) => {
      new Worker(ends[1], origin(false), () => made, resolve);
    });
    const got = collector<ToSupervisor>();
    const answers = (message: ToSupervisor) => {
      if (message.t !== 'vitals') got.take(message);
    };
    const supervisor = new ControlChannel<ToWorker, ToSupervisor>(ends[0], fromWorker, answers, () => {});
    supervisor.send({ t: 'settings', settings: settings() });
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
      { t: 'metrics', delta: counted },
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
    const supervisor = new ControlChannel<ToWorker, ToSupervisor>(ends[0], fromWorker, got.take, () => {});
    supervisor.send({ t: 'settings', settings: settings() });
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
      followEvents: () => {},
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
    const supervisor = new ControlChannel<ToWorker, ToSupervisor>(ends[0], fromWorker, answers, () => {});
    supervisor.send({ t: 'settings', settings: settings() });
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
      fromWorker,
      () => {},
      () => {},
    );
    supervisor.send({ t: 'settings', settings: settings() });
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
    const patient = (orphanTimeout: number) => settings({ orphanTimeout, runtimeDirectory: directory });
    const first = new ControlChannel<ToWorker, ToSupervisor>(
      ends[0],
      fromWorker,
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
      fromWorker,
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
      fromWorker,
      () => {},
      () => {},
    );
    supervisor.send({
      t: 'settings',
      settings: settings({ orphanTimeout: 60_000, runtimeDirectory: directory }),
    });
    supervisor.send({ t: 'synced' });
    supervisor.send({ t: 'await' });
    supervisor.finish(() => ends[0].destroy());
    const server = createServer().listen(join(directory, 'workers.sock'));
    const [socket] = (await once(server, 'connection')) as [Socket];
    server.close();
    const next = new ControlChannel<ToWorker, ToSupervisor>(
      socket,
      fromWorker,
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

  it('follows no supervisor that speaks of another catalogue', async () => {
    const { calls, made } = plane();
    const worker = new Worker(
      ends[1],
      origin(true),
      () => made,
      () => {},
    );
    ends[0].on('error', () => {});
    const closed = new Promise((resolve) => {
      const supervisor = new ControlChannel<ToWorker, ToSupervisor>(ends[0], fromWorker, () => {}, resolve);
      supervisor.send({ t: 'settings', settings: settings({ orphanTimeout: 60_000 }) });
      supervisor.send({ t: 'delta', delta: delta(40), first: true, more: false });
      supervisor.send({ t: 'synced' });
      supervisor.send({ t: 'delta', delta: delta(43), first: false, more: false });
    });
    await closed;
    // It serves on, with what it knew.
    expect(calls).toEqual(['use 41 with 0', 'serve']);
    worker.end();
  });
});
