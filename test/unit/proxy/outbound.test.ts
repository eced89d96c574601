import { describe, expect, it } from 'vitest';
import { identityOf, Naming, unknownIdentity } from '../../../src/caller/identity.ts';
import type { ChannelClose } from '../../../src/io/channel.ts';
import { type ClientAddress, type OriginalDestination, parseEndpoint } from '../../../src/model/address.ts';
import type { ConnectionRecord } from '../../../src/model/connection.ts';
import { noPolicy } from '../../../src/model/policy.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { Connections } from '../../../src/proxy/connections.ts';
import type { OutboundDependencies } from '../../../src/proxy/opening-dependencies.ts';
import { Outbound } from '../../../src/proxy/outbound.ts';
import type { AgentStream, OutboundRoute } from '../../../src/proxy/outbound-dependencies.ts';
import { MemoryChannel, turn } from './memory-channel.ts';

const endpoint = (text: string) => parseEndpoint(text)!;
const destination = endpoint('10.0.0.9:80') as OriginalDestination;
const from = endpoint('10.0.0.1:4000') as ClientAddress;
const listener = endpoint('127.0.0.1:15001');

function instance(id: string): Instance {
  return {
    id: id as InstanceId,
    address: endpoint(`10.0.0.${id}:80`),
    node: `n${id}` as NodeName,
    zone: 'z',
    labels: {},
    weight: 100,
    draining: false,
  };
}

function service(mode: Service['mode'], instances: Instance[]): Service {
  return {
    name: 'web' as ServiceName,
    protocol: 'tcp',
    mode,
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances,
  };
}

/** What a stream to an agent finds. */
interface Tunnel {
  path?: 'tunnel' | 'relay';
  silence?: number;
  doubtful?: boolean;
  /** Streams keep their bytes back. */
  holds?: boolean;
}

/** A stream through another agent. */
class AgentChannel extends MemoryChannel implements AgentStream {
  readonly #tunnel: Tunnel | undefined;
  doubts = 0;

  constructor(tunnel: Tunnel | undefined) {
    super();
    this.#tunnel = tunnel;
  }

  get bytesSent(): number {
    return this.#tunnel?.holds === true ? 0 : this.text.length;
  }

  get silence(): number {
    return this.#tunnel?.silence ?? 0;
  }

  get doubtful(): boolean {
    return this.#tunnel?.doubtful === true;
  }

  doubt(): void {
    this.doubts++;
  }

  override close(why: ChannelClose): void {
    super.close(why.reason === 'local' ? { ...why, delivered: this.bytesSent > 0 } : why);
  }
}

function setup(route: OutboundRoute, overrides: Partial<OutboundDependencies> = {}) {
  const records: ConnectionRecord[] = [];
  const opened: { instance: string; channel: AgentChannel }[] = [];
  /** How it stands with the tunnels to the instances' agents; by default nothing is known against them. */
  const tunnels: Record<string, Tunnel> = {};
  const direct: { to: string; channel: MemoryChannel }[] = [];
  const outcomes: string[] = [];
  const evidence: string[] = [];
  const timers = new Set<() => void>();
  const dial = (to: string) => {
    const channel = new MemoryChannel();
    direct.push({ to, channel });
    return channel;
  };
  const outbound = new Outbound(
    {
      route: () => route,
      pick: (of, exclude) => of.instances.find((candidate) => !exclude.has(candidate)),
      started: (_service, { id }) => ({
        connected: () => outcomes.push(`${id} connected`),
        failed: () => outcomes.push(`${id} failed`),
        answered: () => {},
        finished: () => outcomes.push(`${id} finished`),
      }),
      open: (_service, { id }) => {
        const channel = new AgentChannel(tunnels[id]);
        opened.push({ instance: id, channel });
        return { channel, path: tunnels[id]?.path ?? 'tunnel', viaAgent: true, agent: channel };
      },
      direct: (to) => dial(to.ip),
      past: (_service, { address }) => dial(address.ip),
      breaker: () => undefined,
      protocols: {},
      httpAt: () => {},
      explicit: () => {},
      named: () => undefined,
      detection: () => ({ enabled: true, timeout: 250, serverFirstPorts: [] }),
      detected: () => {},
      callerNode: 'me' as NodeName,
      callerService: () => undefined,
      admit: () => undefined,
      exempt: () => false,
      needsNames: () => false,
      policy: () => noPolicy,
      settings: () => ({ attempts: 3, replayBuffer: 10, agentPatience: 1000, connectTimeout: 5000 }),
      reached: (_service, { id }) => evidence.push(`${id} reached`),
      unreached: (_service, tried, only) => {
        const ids = Array.from(tried, ({ id }) => id).join(' ');
        evidence.push(`${only === undefined ? '' : 'only '}${ids} unreached`);
      },
      after: (_milliseconds, expired) => {
        timers.add(expired);
        return () => timers.delete(expired);
      },
      ...overrides,
    },
    new Connections('0', { started: () => {}, ended: (record) => records.push(record) }),
  );
  const client = new MemoryChannel();
  /** The time of everything that waits is over. */
  const expire = () => {
    const due = [...timers];
    timers.clear();
    for (const expired of due) expired();
  };
  return { outbound, client, records, opened, tunnels, direct, outcomes, evidence, timers, expire };
}

const refusedByCallee: ChannelClose = { reason: 'refused', delivered: false, source: 'callee' };
const agentGone: ChannelClose = { reason: 'unreachable', delivered: false, source: 'peer' };

describe('Outbound', () => {
  it('lets an unknown destination pass to where it was going', () => {
    const { outbound, client, direct, records } = setup({ kind: 'passthrough' });
    outbound.accept(client, from, destination, listener);
    expect(direct.map((d) => d.to)).toEqual(['10.0.0.9']);
    expect(client.paused).toBe(true);
    direct[0]!.channel.handler.open!();
    expect(client.paused).toBe(false);
    client.handler.end();
    direct[0]!.channel.handler.end();
    direct[0]!.channel.close({ reason: 'done', delivered: true });
    client.close({ reason: 'done', delivered: true });
    expect(records).toMatchObject([{ path: 'passthrough', reason: 'done', attempts: 1 }]);
  });

  it('lets callers whom the allow-list names pass, but not to strict services and virtual addresses', () => {
    const web = service('permissive', [instance('1')]);
    const exempt = { exempt: () => true };
    const past = setup({ kind: 'service', service: web }, exempt);
    past.outbound.accept(past.client, from, destination, listener);
    expect(past.direct.map(({ to }) => to)).toEqual([destination.ip]);
    expect(past.opened).toEqual([]);
    for (const through of [service('strict', [instance('1')]), { ...web, virtual: [destination.ip] }]) {
      const { outbound, client, opened, direct } = setup({ kind: 'service', service: through }, exempt);
      outbound.accept(client, from, destination, listener);
      expect([opened.length, direct.length]).toEqual([1, 0]);
    }
  });

  it('waits for the name of a caller whom the allow-list may name, and not for one who has gone', () => {
    const web = service('permissive', [instance('1')]);
    for (const gone of [false, true]) {
      const naming = new Naming(unknownIdentity, 'cgroup:7');
      let known: boolean | undefined;
      const { outbound, client, direct, opened, records } = setup(
        { kind: 'service', service: web },
        {
          admit: (entry) => {
            entry.naming = naming;
            return undefined;
          },
          exempt: () => known,
        },
      );
      outbound.accept(client, from, destination, listener);
      expect([direct.length, opened.length]).toEqual([0, 0]);
      expect(client.paused, 'nothing has to be kept meanwhile').toBe(true);
      if (gone) client.close({ reason: 'reset', delivered: false });
      known = true;
      naming.settle(identityOf({ unit: 'backup.service' }));
      expect([direct.length, opened.length]).toEqual([gone ? 0 : 1, 0]);
      expect(records).toHaveLength(gone ? 1 : 0);
    }
  });

  it('waits for every name where access depends on it, and tells the name onward', () => {
    const naming = new Naming(unknownIdentity, 'cgroup:7');
    const told: (string | undefined)[] = [];
    const explicit: (string | undefined)[] = [];
    const { outbound, client } = setup(
      { kind: 'service', service: service('strict', [instance('1')]) },
      {
        admit: (entry) => {
          entry.callerProgram = 'unknown';
          entry.naming = naming;
          naming.wait(({ text }) => {
            entry.callerProgram = text;
            entry.naming = undefined;
          });
          return undefined;
        },
        needsNames: () => true,
        open: (_service, _instance, { program }) => {
          told.push(program);
          return { channel: new MemoryChannel(), path: 'tunnel', viaAgent: true };
        },
        explicit: (_client, _entry, { program }) => explicit.push(program),
      },
    );
    outbound.accept(client, from, destination, listener);
    outbound.acceptExplicit(new MemoryChannel(), from, listener);
    expect([told, explicit]).toEqual([[], []]);
    naming.settle(identityOf({ unit: 'front.service' }));
    expect([told, explicit]).toEqual([['unit:front.service'], ['unit:front.service']]);
  });

  it('refuses a connection to the capture port itself', () => {
    const { outbound, client, records } = setup({ kind: 'passthrough' });
    outbound.accept(client, from, undefined, listener);
    expect(client.resetWith).toBe('loop');
    expect(records).toMatchObject([{ reason: 'loop', path: 'none' }]);
  });

  it('tries another instance while no byte can have been delivered, with the bytes sent so far', () => {
    const web = service('permissive', [instance('1'), instance('2')]);
    const { outbound, client, opened, records, outcomes } = setup({ kind: 'service', service: web });
    outbound.accept(client, from, destination, listener);
    client.handler.data(Buffer.from('hello'));
    client.handler.end();
    opened[0]!.channel.close(refusedByCallee);
    expect(opened.map((o) => o.instance)).toEqual(['1', '2']);
    expect(opened[1]!.channel.text).toBe('hello');
    expect(opened[1]!.channel.ended).toBe(true);
    opened[1]!.channel.handler.open!();
    opened[1]!.channel.handler.data(Buffer.from('world'));
    opened[1]!.channel.handler.end();
    opened[1]!.channel.close({ reason: 'done', delivered: true });
    client.close({ reason: 'done', delivered: true });
    expect(client.text).toBe('world');
    expect(records).toMatchObject([
      { instance: '2', attempts: 2, bytesSent: 5, bytesReceived: 5, reason: 'done' },
    ]);
    expect(outcomes).toEqual(['1 failed', '1 finished', '2 connected', '2 finished']);
  });

  it('never repeats what may have been delivered', () => {
    const web = service('permissive', [instance('1'), instance('2')]);
    const { outbound, client, opened, records } = setup({ kind: 'service', service: web });
    outbound.accept(client, from, destination, listener);
    opened[0]!.channel.close({ reason: 'tunnel-lost', delivered: true, source: 'peer' });
    expect(opened).toHaveLength(1);
    expect(client.resetWith).toBe('tunnel-lost');
    expect(records).toMatchObject([{ reason: 'tunnel-lost' }]);
  });

  it('goes to a permissive instance directly when no agent can be reached, other instances first', () => {
    const web = service('permissive', [instance('1'), instance('2')]);
    const { outbound, client, opened, direct } = setup({ kind: 'service', service: web });
    outbound.accept(client, from, destination, listener);
    client.handler.data(Buffer.from('hi'));
    opened[0]!.channel.close(agentGone);
    opened[1]!.channel.close(agentGone);
    expect(direct.map((d) => d.to)).toEqual(['10.0.0.1']);
    expect(direct[0]!.channel.text).toBe('hi');
  });

  it('never goes to a strict instance directly, nor past a denial', () => {
    const strict = setup({ kind: 'service', service: service('strict', [instance('1')]) });
    strict.outbound.accept(strict.client, from, destination, listener);
    strict.opened[0]!.channel.close(agentGone);
    expect(strict.direct).toEqual([]);
    expect(strict.client.resetWith).toBe('unreachable');

    const denied = setup({ kind: 'service', service: service('permissive', [instance('1')]) });
    denied.outbound.accept(denied.client, from, destination, listener);
    denied.opened[0]!.channel.close({ reason: 'denied', delivered: false, source: 'peer' });
    expect(denied.direct).toEqual([]);
    expect(denied.client.resetWith).toBe('denied');
  });

  it('takes the word of an agent that lets its caller not in for all of them, and not against the instance', () => {
    const web = service('permissive', [instance('1'), instance('2'), instance('3')]);
    const { outbound, client, opened, direct, outcomes, records } = setup({ kind: 'service', service: web });
    outbound.accept(client, from, destination, listener);
    opened[0]!.channel.close(agentGone);
    opened[1]!.channel.close({ reason: 'denied', delivered: false, source: 'callee', detail: 'rule x' });
    expect([opened.length, direct.length]).toEqual([2, 0]);
    expect(client.resetWith).toBe('denied');
    expect(outcomes).toEqual(['1 finished', '2 finished']);
    expect(records).toMatchObject([{ reason: 'denied', detail: 'rule x' }]);
  });

  it('goes past an agent that does not answer, unless bytes are with it already', async () => {
    const web = service('permissive', [instance('1')]);
    const quiet = setup({ kind: 'service', service: web });
    quiet.outbound.accept(quiet.client, from, destination, listener);
    quiet.expire();
    await turn();
    expect(quiet.direct.map((d) => d.to)).toEqual(['10.0.0.1']);
    expect(quiet.outcomes).toEqual(['1 finished']);

    const sent = setup({ kind: 'service', service: web });
    sent.outbound.accept(sent.client, from, destination, listener);
    sent.client.handler.data(Buffer.from('may have arrived'));
    sent.expire();
    await turn();
    expect(sent.direct).toEqual([]);
    sent.opened[0]!.channel.handler.open!();
    expect(sent.timers.size).toBe(0);
  });

  it('gives an agent that does not answer up for another instance, of strict services and behind relays, too', async () => {
    for (const path of ['tunnel', 'relay'] as const) {
      const strict = service('strict', [instance('1'), instance('2')]);
      const { outbound, client, opened, tunnels, expire, timers, outcomes } = setup({
        kind: 'service',
        service: strict,
      });
      tunnels['1'] = { path, holds: true };
      outbound.accept(client, from, destination, listener);
      client.handler.data(Buffer.from('held back'));
      expire();
      await turn();
      expect(opened.map((o) => o.instance)).toEqual(['1', '2']);
      expect(opened[0]!.channel).toMatchObject({ resetWith: 'timeout', doubts: 1 });
      expect(opened[1]!.channel.text).toBe('held back');
      opened[1]!.channel.handler.open!();
      expect(timers.size).toBe(0);
      expect(outcomes, 'nothing is known against the instance').toEqual(['1 finished', '2 connected']);
    }
  });

  it('waits for an agent that does not answer while there is nothing else to try', async () => {
    const strict = service('strict', [instance('1'), instance('2')]);
    const { outbound, client, opened, tunnels, expire } = setup({ kind: 'service', service: strict });
    tunnels['1'] = tunnels['2'] = { holds: true };
    outbound.accept(client, from, destination, listener);
    expire();
    await turn();
    expire();
    await turn();
    expect(opened.map((o) => o.instance)).toEqual(['1', '2']);
    expect(opened[1]!.channel.resetWith).toBeUndefined();
    opened[1]!.channel.handler.open!();
    expect(client.resetWith).toBeUndefined();
  });

  it('passes agents by that are known to be silent, at once, and does not count them', async () => {
    const many = service('strict', ['1', '2', '3', '4', '5'].map(instance));
    const { outbound, client, opened, tunnels, timers } = setup({ kind: 'service', service: many });
    for (const id of ['1', '2', '3', '4']) tunnels[id] = { silence: 1000 };
    outbound.accept(client, from, destination, listener);
    for (let i = 0; i < 5; i++) await turn();
    expect(opened.map((o) => o.instance)).toEqual(['1', '2', '3', '4', '5']);
    expect(opened[4]!.channel.resetWith).toBeUndefined();
    opened[4]!.channel.handler.open!();
    expect(timers.size).toBe(0);

    const alone = setup({ kind: 'service', service: service('permissive', [instance('1')]) });
    alone.tunnels['1'] = { silence: 1000 };
    alone.outbound.accept(alone.client, from, destination, listener);
    await turn();
    expect(alone.direct.map(({ to }) => to)).toEqual(['10.0.0.1']);
  });

  it('asks the one named instance again through another tunnel, once, when the first is in doubt', async () => {
    const web = service('strict', [instance('1')]);
    const named = { kind: 'instance', service: web, instance: web.instances[0]! } as const;
    const doubtful = setup(named);
    doubtful.tunnels['1'] = { path: 'relay', doubtful: true, holds: true };
    doubtful.outbound.accept(doubtful.client, from, destination, listener);
    doubtful.client.handler.data(Buffer.from('hi'));
    doubtful.expire();
    await turn();
    expect(doubtful.opened).toHaveLength(2);
    doubtful.expire();
    await turn();
    expect(doubtful.opened).toHaveLength(2);
    doubtful.opened[1]!.channel.handler.open!();
    expect(doubtful.opened[1]!.channel.text).toBe('hi');

    const lost = setup(named);
    const tunnelLost: ChannelClose = { reason: 'tunnel-lost', delivered: false, source: 'peer' };
    lost.outbound.accept(lost.client, from, destination, listener);
    lost.opened[0]!.channel.close(tunnelLost);
    expect(lost.opened).toHaveLength(2);
    lost.opened[1]!.channel.close(tunnelLost);
    expect(lost.opened).toHaveLength(2);
    expect(lost.client.resetWith).toBe('tunnel-lost');
    expect(lost.evidence).toEqual(['only 1 unreached']);
  });

  it('says nothing twice that an agent may have heard, however silent it is', async () => {
    const web = service('permissive', [instance('1'), instance('2')]);
    const { outbound, client, opened, direct, tunnels, expire } = setup({ kind: 'service', service: web });
    tunnels['1'] = { doubtful: true };
    outbound.accept(client, from, destination, listener);
    client.handler.data(Buffer.from('may have arrived'));
    expire();
    await turn();
    expect(opened[0]!.channel).toMatchObject({ resetWith: undefined, doubts: 1 });
    opened[0]!.channel.close({ reason: 'tunnel-lost', delivered: true, source: 'peer' });
    expect([opened.length, direct.length]).toEqual([1, 0]);
    expect(client.resetWith).toBe('tunnel-lost');
  });

  it('never waits for ever for an agent that lives and does not answer', async () => {
    const strict = setup({ kind: 'service', service: service('strict', [instance('1')]) });
    strict.outbound.accept(strict.client, from, destination, listener);
    strict.client.handler.data(Buffer.from('may have arrived'));
    strict.expire();
    await turn();
    expect(strict.client.resetWith).toBeUndefined();
    strict.expire();
    await turn();
    expect(strict.opened[0]!.channel.resetWith).toBe('timeout');
    expect(strict.client.resetWith).toBe('timeout');
    expect(strict.records).toMatchObject([{ reason: 'timeout', detail: expect.stringContaining('agent') }]);
    expect(strict.evidence).toEqual([]);
    expect(strict.timers.size).toBe(0);
  });

  it('says whom it reached, and whom it could not', () => {
    const web = service('permissive', [instance('1'), instance('2')]);
    const through = setup({ kind: 'service', service: web });
    through.outbound.accept(through.client, from, destination, listener);
    through.opened[0]!.channel.close(refusedByCallee);
    through.opened[1]!.channel.handler.open!();
    expect(through.evidence).toEqual(['2 reached']);

    const nobody = setup({ kind: 'service', service: web });
    nobody.outbound.accept(nobody.client, from, destination, listener);
    nobody.opened[0]!.channel.close(refusedByCallee);
    nobody.opened[1]!.channel.close(agentGone);
    expect(nobody.evidence).toEqual([]);
    nobody.direct[0]!.channel.close({ reason: 'timeout', delivered: false });
    expect(nobody.evidence).toEqual(['1 2 unreached']);

    const named = setup({ kind: 'instance', service: web, instance: web.instances[1]! });
    named.outbound.accept(named.client, from, destination, listener);
    named.opened[0]!.channel.close(refusedByCallee);
    expect(named.evidence).toEqual(['only 2 unreached']);
  });

  it.each([
    ['a denial', 'denied', 'peer'],
    ['a shortage', 'overload', 'peer'],
    ['trouble of this host', 'system', undefined],
  ] as const)('takes %s for no evidence of death', (_what, reason, source) => {
    const one = setup({ kind: 'service', service: service('strict', [instance('1')]) });
    one.outbound.accept(one.client, from, destination, listener);
    one.opened[0]!.channel.close({ reason, delivered: false, ...(source === undefined ? {} : { source }) });
    expect(one.client.resetWith).toBe(reason);
    expect(one.evidence).toEqual([]);
  });

  it('tries one named instance and no other', () => {
    const web = service('strict', [instance('1'), instance('2')]);
    const { outbound, client, opened } = setup({
      kind: 'instance',
      service: web,
      instance: web.instances[1]!,
    });
    outbound.accept(client, from, destination, listener);
    opened[0]!.channel.close(refusedByCallee);
    expect(opened.map((o) => o.instance)).toEqual(['2']);
    expect(client.resetWith).toBe('refused');
  });

  it('bounds the bytes kept for another attempt', () => {
    const { outbound, client } = setup({ kind: 'service', service: service('permissive', [instance('1')]) });
    outbound.accept(client, from, destination, listener);
    expect(client.paused).toBe(false);
    client.handler.data(Buffer.from('0123456789'));
    expect(client.paused).toBe(true);
  });

  it('gives up its attempt when the caller goes away', async () => {
    const { outbound, client, opened, records, outcomes } = setup({
      kind: 'service',
      service: service('permissive', [instance('1')]),
    });
    outbound.accept(client, from, destination, listener);
    client.close({ reason: 'reset', delivered: true });
    await turn();
    expect(opened[0]!.channel.resetWith).toBeDefined();
    expect(records).toMatchObject([{ reason: 'client-reset' }]);
    expect(outcomes).toEqual(['1 finished']);
  });

  it('refuses at once when there is no instance', () => {
    const { outbound, client, records } = setup({ kind: 'service', service: service('permissive', []) });
    outbound.accept(client, from, destination, listener);
    expect(client.resetWith).toBe('no-instance');
    expect(records).toMatchObject([{ reason: 'no-instance', attempts: 0 }]);
  });
});
