import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { expect, it } from 'vitest';
import { SourcePorts } from '../../src/caller/source-ports.ts';
import { ControlChannel } from '../../src/daemon/control/channel.ts';
import { fromWorker } from '../../src/daemon/control/from-worker.ts';
import type { ToSupervisor, ToWorker } from '../../src/daemon/control/messages.ts';
import { isPlainMessage } from '../../src/daemon/control/msgpack-form.ts';
import { EventLog } from '../../src/daemon/events.ts';
import { VitalCounts } from '../../src/daemon/guard/vitals.ts';
import { parseHello } from '../../src/daemon/succession/hello.ts';
import { HostOutages } from '../../src/daemon/supervisor/outages.ts';
import { type DataPlane, Worker } from '../../src/daemon/worker/worker.ts';
import type { WorkerLife } from '../../src/daemon/workers/worker-life.ts';
import { WorkerProcess } from '../../src/daemon/workers/worker-process.ts';
import { MeshError } from '../../src/model/errors.ts';
import { addressesOf, type Claim } from '../../src/model/snapshot.ts';
import { MetricsRegistry } from '../../src/telemetry/metrics-registry.ts';
import { connection, delta, settings } from '../unit/daemon/control/conversation.ts';

const runs = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`control fuzz: seed ${seed}, ${runs} runs`);
const check = (property: fc.IRawProperty<unknown>) => fc.assert(property, { numRuns: runs, seed });

const packr = new Packr({ useRecords: false });
const pack = (value: unknown) => packr.pack(value);

const endpoint = { ip: '10.0.0.1', port: 80 };
const service = {
  ...{ name: 'web', protocol: 'tcp', mode: 'permissive', interchangeable: false, balance: 'round-robin' },
  ...{ hosts: ['web.example'], addresses: [endpoint], ports: [80], virtual: ['240.0.0.1'] },
  instances: [{ id: 'a', address: endpoint, zone: 'z', labels: { k: 'v' }, weight: 100, draining: false }],
};
const hello = {
  ...{ build: '1+a', fingerprint: 'f', index: 0, epoch: '1', listeners: [1], draining: false, startedAt: 1 },
};

/** One of each, as they are sent. */
const ofWorkers: readonly unknown[] = [
  { t: 'hello', hello },
  { t: 'ready' },
  { t: 'ack', version: 1 },
  { t: 'policies', version: 1 },
  { t: 'pong', id: 1 },
  { t: 'metrics', delta: [['mesh_node_connections_open', ['outbound'], [1]]] },
  { t: 'vitals', vitals: { at: 1, delayMs: 0.5, descriptors: 9, descriptorLimit: 99, taken: 1, failed: 0 } },
  { t: 'outages', down: [{ service: 'web' }, { service: 'web', instance: 'a' }] },
  { t: 'list', id: 1, listing: { items: [connection], total: 1 } },
  { t: 'source-ports', id: 1, connections: [] },
  { t: 'drained', cut: 0 },
];
const ofSupervisors: readonly unknown[] = [
  { t: 'settings', settings: settings() },
  { t: 'delta', delta: { ...delta(7), services: [service] }, first: true, more: false },
  { t: 'delta', delta: delta(8), first: false, more: false },
  { t: 'policies', policies: { version: 1, common: { hops: 'two' }, services: { web: { retries: {} } } } },
  { t: 'synced' },
  { t: 'ping', id: 1 },
  { t: 'await' },
  { t: 'list', id: 1, list: 'tunnels', limit: 5 },
  { t: 'reopen-logs' },
  { t: 'source-ports', id: 1, ports: [80] },
  { t: 'drain', timeoutMs: 5, letGo: true },
];

/** Another value somewhere inside. */
function bent(value: unknown, path: readonly number[], by: unknown): unknown {
  const [step, ...rest] = path;
  if (step === undefined || typeof value !== 'object' || value === null) return by;
  const entries = Object.entries(value);
  if (entries.length === 0) return by;
  const [key, inner] = entries[step % entries.length]!;
  const changed = rest.length === 0 ? by : bent(inner, rest, by);
  return Array.isArray(value)
    ? value.map((item, at) => (String(at) === key ? changed : item))
    : { ...value, [key]: changed };
}

const anything = fc.oneof(
  fc.constantFrom<unknown>(
    undefined,
    null,
    -1,
    0.5,
    2 ** 53,
    Number.NaN,
    '',
    '__proto__',
    [],
    {},
    [[]],
    [null],
  ),
  fc.anything({ maxDepth: 3, withBigInt: true, withDate: true, withMap: true, withSet: true }),
);

/** Bytes behind the length of a message: whole ones, bent ones, damaged ones, and anything. */
const bodies = (samples: readonly unknown[]) => {
  const sample = fc.constantFrom(...samples);
  const whole = sample.map(pack);
  return fc.oneof(
    whole,
    fc.tuple(sample, fc.array(fc.nat(30), { maxLength: 6 }), anything).map(([value, path, by]) => {
      try {
        return pack(bent(value, path, by));
      } catch {
        return pack(null); // a symbol, a function
      }
    }),
    fc
      .tuple(whole, fc.array(fc.tuple(fc.nat(300), fc.nat(255)), { maxLength: 5 }), fc.nat(300))
      .map(([bytes, changes, cut]) => {
        const copy = Buffer.from(bytes);
        for (const [at, by] of changes) copy[at % copy.length] = by;
        return copy.subarray(0, cut < 5 ? cut : copy.length);
      }),
    fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
  );
};

/** A connection without a kernel. */
class FakeSocket extends EventEmitter {
  destroyed = false;
  readonly writableLength = 0;
  failure: Error | undefined;

  receive(bodies: readonly Uint8Array[]): void {
    for (const body of bodies) {
      const header = Buffer.alloc(4);
      header.writeUInt32LE(body.length);
      if (!this.destroyed) this.emit('data', Buffer.concat([header, body]));
    }
  }

  destroy(error?: Error): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.failure = error;
    if (error !== undefined) this.emit('error', error);
    this.emit('close');
  }

  write(): boolean {
    return true;
  }
  end(done: () => void): void {
    done();
  }
  cork(): void {}
  uncork(): void {}
}

const registry = new MetricsRegistry();

it('a supervisor outlives whatever a worker says, and ends it for nonsense only', async () => {
  check(
    fc.property(fc.array(bodies(ofWorkers), { maxLength: 6 }), (messages) => {
      const socket = new FakeSocket();
      const outages = new HostOutages(() => {});
      const events = new EventLog();
      let killed = 0;
      const life: WorkerLife = {
        ...{ pid: 1, onEnd: () => {}, hungUp: () => {}, release: () => {} },
        kill: () => killed++,
      };
      const worker = new WorkerProcess(0, life, socket as unknown as Socket, 60_000, {
        stateChanged: () => {},
        acknowledged: (_, version) => expect(version).toBe(1),
        metrics: (_, counts) => registry.merge('worker-0', counts),
        measured: (_, vitals) => {
          for (const one of Object.values(vitals).slice(0, 6)) expect(one).toBeGreaterThanOrEqual(0);
        },
        outages: (_, down) => outages.heard(1, down),
        event: (_, event) => events.add('worker-0', event),
        exited: () => {},
      });
      worker.begin([delta(0)]);
      void worker.list('connections', 5).catch(() => undefined);
      socket.receive(messages);
      expect(killed).toBe(socket.destroyed ? 1 : 0);
      if (socket.destroyed) expect(socket.failure).toBeInstanceOf(MeshError);
      worker.kill('the test is over');
      socket.destroy();
    }),
  );
  expect(await registry.text()).not.toContain('NaN');
});

it('what is taken for a hello is one', () => {
  check(
    fc.property(bodies([{ t: 'hello', hello }]), (body) => {
      const socket = new FakeSocket();
      new ControlChannel<ToWorker, ToSupervisor>(
        socket as unknown as Socket,
        fromWorker,
        (message) => {
          if (message.t === 'hello') expect(parseHello(message)).toBeDefined();
        },
        () => {},
      );
      socket.receive([body]);
    }),
  );
});

it('a worker outlives whatever a supervisor says, and carries on with what it knew', () => {
  check(
    fc.property(fc.array(bodies(ofSupervisors), { maxLength: 8 }), (messages) => {
      const socket = new FakeSocket();
      const plane: DataPlane = {
        ...{ configure: () => {}, serve: () => {}, measured: () => {}, reopenLogs: () => {}, cut: () => {} },
        usePolicies: () => {},
        use: ({ services }) => {
          for (const each of services.values()) expect(addressesOf(each)).toBeDefined();
        },
        vitals: new VitalCounts(),
        sourcePorts: new SourcePorts(),
        followEvents: () => {},
        followOutages: (tell: (down: readonly Claim[]) => void) => tell([]),
        list: () => ({ items: [], total: 0 }),
        metrics: () => [],
        drain: async () => 0,
      };
      const origin = { build: '1+a', index: 0, epoch: '1', listeners: [], adoptable: true };
      const worker = new Worker(
        socket as unknown as Socket,
        origin,
        () => plane,
        () => {},
      );
      socket.receive(messages);
      if (socket.failure !== undefined) expect(socket.failure).toBeInstanceOf(MeshError);
      socket.destroy();
      worker.end();
    }),
  );
});

it('what passes for a message is read whole or not at all, and is no larger than its bytes allow', () => {
  check(
    fc.property(bodies([...ofWorkers, ...ofSupervisors]), (body) => {
      if (!isPlainMessage(body, 1_000)) return;
      let value: unknown;
      try {
        value = packr.unpack(body);
      } catch {
        // Keys that are no texts: the next message is read all the same.
        expect(packr.unpack(pack(hello))).toEqual(hello);
        return;
      }
      let values = 0;
      const count = (one: unknown): void => {
        values++;
        if (typeof one === 'object' && one !== null) for (const inner of Object.values(one)) count(inner);
      };
      count(value);
      expect(values).toBeLessThanOrEqual(Math.min(1_000, body.length));
    }),
  );
});
