import { describe, expect, it } from 'vitest';
import { AccessControl } from '../../../src/access/access-control.ts';
import { RequestGuard } from '../../../src/http/request-guard.ts';
import { endpointKey, parseEndpoint } from '../../../src/model/address.ts';
import type { ConnectionRecord } from '../../../src/model/connection.ts';
import type { PeerIdentity } from '../../../src/model/peer.ts';
import type { AccessRule, ServicePolicy } from '../../../src/model/policy.ts';
import type { InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot } from '../../../src/model/snapshot.ts';
import { AccessRecheck } from '../../../src/proxy/access-recheck.ts';
import { AdmittedDelivery } from '../../../src/proxy/admitted-delivery.ts';
import { Connections } from '../../../src/proxy/connections.ts';
import { Delivery } from '../../../src/proxy/delivery.ts';
import { Inbound } from '../../../src/proxy/inbound.ts';
import { type RelayDecision, ZoneRelay } from '../../../src/proxy/zone-relay.ts';
import { MemoryChannel, turn } from './memory-channel.ts';

const peer: PeerIdentity = {
  node: 'far' as NodeName,
  callAs: new Set(['shop' as ServiceName]),
  host: new Set(),
  relay: false,
  expiresAt: 0,
};
const web: Service = {
  name: 'web' as ServiceName,
  protocol: 'tcp',
  mode: 'permissive',
  interchangeable: false,
  balance: 'round-robin',
  hosts: [],
  addresses: [],
  instances: ['here', 'there'].map((node, at) => ({
    id: node as InstanceId,
    address: parseEndpoint(`10.0.0.${at + 1}:80`)!,
    node: node as NodeName,
    zone: 'z',
    labels: {},
    weight: 100,
    draining: false,
  })),
};
const noDelta = { base: 0, removedServices: [], nodes: [], removedNodes: [] };

function setup(policy: ServicePolicy = {}) {
  const dialled: { to: string; channel: MemoryChannel }[] = [];
  const records: ConnectionRecord[] = [];
  const dial = (to: string) => {
    const channel = new MemoryChannel();
    dialled.push({ to, channel });
    return channel;
  };
  const delivery = new Delivery({
    direct: (to) => dial(endpointKey(to)),
    directFrom: (from, to) => dial(`${from} → ${endpointKey(to)}`),
    transparent: (from, to) => dial(`${endpointKey(from)} → ${endpointKey(to)}`),
    isOwnAddress: (ip) => ip === '10.0.0.1',
  });
  const now = { policy };
  const catalogue = { services: [web] };
  const snapshotNow = () => applyDelta(emptySnapshot, { ...noDelta, services: catalogue.services });
  const decisions: string[] = [];
  const access = new AccessControl({
    policy: () => now.policy,
    decided: (service, action) => decisions.push(`${service} ${action}`),
  });
  const connections = new Connections('0', { started: () => {}, ended: (record) => records.push(record) });
  const admitted = new AdmittedDelivery(
    delivery,
    access,
    (channel, service, owner) => new RequestGuard(channel, service, owner),
  );
  const inbound = new Inbound(
    { snapshot: snapshotNow, node: 'here' as NodeName, delivery, admitted },
    connections,
  );
  const recheck = new AccessRecheck({ connections, access, snapshot: snapshotNow });
  return { inbound, dialled, records, decisions, now, catalogue, recheck, stream: new MemoryChannel() };
}

const request = (service: string, instance: string, callerService?: string) => ({
  service: service as ServiceName,
  instance: instance as InstanceId,
  callerService: callerService as ServiceName | undefined,
  callerProgram: undefined,
  callerAddress: undefined,
});

describe('Inbound', () => {
  it('delivers to the registered address and accepts once that is connected', () => {
    const { inbound, dialled, stream } = setup();
    inbound.accept(request('web', 'here', 'shop'), stream, peer, 'peer:1');
    expect(dialled.map((d) => d.to)).toEqual(['10.0.0.1:80']);
    expect([stream.accepted, stream.paused]).toEqual([false, true]);
    dialled[0]!.channel.handler.open!();
    expect([stream.accepted, stream.paused]).toEqual([true, false]);
  });

  it.each([
    ['a service that nobody registered', request('nope', 'here'), 'no-service'],
    ['an instance of another host', request('web', 'there'), 'no-instance'],
    ['an instance that does not exist', request('web', 'gone'), 'no-instance'],
    ['a caller whose certificate says otherwise', request('web', 'here', 'bank'), 'denied'],
  ])('refuses %s without dialling', (_what, asked, code) => {
    const { inbound, dialled, stream, records } = setup();
    inbound.accept(asked, stream, peer, 'peer:1');
    expect(stream.refusal?.code).toBe(code);
    expect(dialled).toEqual([]);
    expect(records).toMatchObject([{ direction: 'inbound', reason: code, callerNode: 'far' }]);
  });

  it('refuses, as not delivered, when the application refuses', () => {
    const { inbound, dialled, stream, records } = setup();
    inbound.accept(request('web', 'here'), stream, peer, 'peer:1');
    dialled[0]!.channel.close({ reason: 'refused', delivered: false });
    expect(stream.refusal?.code).toBe('refused');
    expect(stream.accepted).toBe(false);
    expect(records).toMatchObject([{ reason: 'refused' }]);
  });
});

describe('Inbound, under access rules', () => {
  const rule = (of: Partial<AccessRule>): AccessRule => ({
    ...{ name: 'x', action: 'deny', callers: ['*'] },
    ...of,
  });
  const rules = (list: readonly AccessRule[], shadow = false): ServicePolicy => ({
    access: { rules: list, otherwise: 'allow', shadow },
  });
  const fromUnit = (unit: string) => ({
    ...request('web', 'here', 'shop'),
    callerProgram: `unit:${unit}.service`,
  });

  it.each([
    ['unit', 'unit:front'],
    ['service', 'service:shop'],
    ['node', 'node:far'],
  ])('refuses a caller by its %s, with the name of the rule', (_what, pattern) => {
    const { inbound, dialled, stream, records, decisions } = setup(rules([rule({ callers: [pattern] })]));
    inbound.accept(fromUnit('front'), stream, peer, 'peer:1');
    expect(stream.refusal).toEqual({
      code: 'denied',
      detail: 'access rule x of web does not let unit:front.service on far as shop call web',
    });
    expect([dialled, decisions]).toEqual([[], ['web deny']]);
    expect(records).toMatchObject([{ reason: 'denied', callerProgram: 'unit:front.service' }]);
    expect(records[0]!.access).toMatch(/^deny: access rule x of web/);
  });

  it('lets others through, and writes down what it would deny in shadow', () => {
    const policy = rules([rule({ callers: ['unit:front'] })], true);
    const { inbound, dialled, stream, records, decisions } = setup(policy);
    inbound.accept(fromUnit('front'), stream, peer, 'peer:1');
    dialled[0]!.channel.handler.open!();
    stream.close({ reason: 'reset', delivered: true });
    dialled[0]!.channel.close({ reason: 'reset', delivered: true });
    expect(decisions).toEqual(['web shadow-deny']);
    expect(records[0]!.access).toMatch(/^shadow-deny: access rule x of web/);
  });

  it('ends what lives and may not any more, and nothing else', async () => {
    const { inbound, dialled, records, decisions, now, recheck } = setup();
    const streams = ['front', 'back'].map((unit) => {
      const stream = new MemoryChannel();
      inbound.accept(fromUnit(unit), stream, peer, 'peer:1');
      dialled.at(-1)!.channel.handler.open!();
      return stream;
    });
    now.policy = rules([rule({ callers: ['unit:front'] })], true);
    recheck.start();
    await turn();
    expect(streams.map(({ resetWith }) => resetWith)).toEqual([undefined, undefined]);
    now.policy = rules([rule({ callers: ['unit:front'] })]);
    recheck.start();
    await turn();
    expect(streams.map(({ resetWith }) => resetWith)).toEqual(['denied', undefined]);
    expect(dialled.map(({ channel }) => channel.resetWith)).toEqual(['denied', undefined]);
    expect(records).toMatchObject([{ callerProgram: 'unit:front.service', reason: 'denied' }]);
    expect(decisions).toEqual(['web deny']);
  });

  it('asks about thousands of connections in slices', async () => {
    const { inbound, dialled, now, recheck, records } = setup();
    for (let i = 0; i < 1200; i++) {
      inbound.accept(fromUnit('front'), new MemoryChannel(), peer, 'peer:1');
      dialled.at(-1)!.channel.handler.open!();
    }
    now.policy = rules([rule({})]);
    recheck.start();
    await turn();
    expect(records.length).toBeLessThan(1200);
    await turn();
    await turn();
    await turn();
    expect(records).toHaveLength(1200);
  });

  describe('of requests', () => {
    const policy = rules([rule({ paths: [{ kind: 'prefix', value: '/admin' }] })]);
    const get = (path: string) => Buffer.from(`GET ${path} HTTP/1.1\r\nhost: web\r\n\r\n`);

    function http(first: ServicePolicy) {
      const made = setup(first);
      made.catalogue.services = [{ ...web, protocol: 'http' }];
      const { inbound, stream, dialled } = made;
      inbound.accept(fromUnit('front'), stream, peer, 'peer:1');
      dialled[0]!.channel.handler.open!();
      return { ...made, server: dialled[0]!.channel };
    }

    it('answers 403 to those that are denied, and passes others on', async () => {
      const { stream, server, decisions } = http(policy);
      stream.handler.data(get('/admin'));
      await turn();
      expect(stream.text).toMatch(
        /^HTTP\/1.1 403 Forbidden\r\n(?:.*\r?\n)*.*mesh-error: denied\r\n(?:.*\r?\n)*.*access rule x of web/,
      );
      expect(server.text).toBe('');
      stream.handler.data(get('/'));
      expect(server.text).toBe('GET / HTTP/1.1\r\nhost: web\r\n\r\n');
      expect(decisions).toEqual(['web deny', 'web allow']);
    });

    it('decides by the rules of now, and finishes what is under way', async () => {
      const { stream, server, now, recheck } = http(policy);
      stream.handler.data(get('/'));
      now.policy = rules([rule({ methods: ['GET'] })]);
      recheck.start();
      await turn();
      server.handler.data(Buffer.from('HTTP/1.1 204 No Content\r\n\r\n'));
      expect(stream.text).toMatch(/^HTTP\/1.1 204 /);
      stream.handler.data(get('/'));
      await turn();
      expect(stream.text).toMatch(/HTTP\/1.1 403 /);
    });

    it('cuts what nobody reads when rules begin to speak of requests', async () => {
      const { stream, now, recheck, records } = http({});
      now.policy = policy;
      recheck.start();
      await turn();
      expect(stream.resetWith).toBe('denied');
      expect(records[0]!.detail).toMatch(/nobody reads/);
    });

    it('cuts a WebSocket that may not be any more', async () => {
      const { stream, server, now, recheck } = http(policy);
      stream.handler.data(
        Buffer.from('GET /ws HTTP/1.1\r\nhost: web\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n'),
      );
      server.handler.data(
        Buffer.from('HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n'),
      );
      recheck.start();
      await turn();
      expect(stream.resetWith).toBeUndefined();
      now.policy = rules([rule({ paths: [{ kind: 'exact', value: '/ws' }] })]);
      recheck.start();
      await turn();
      expect(stream.resetWith).toBe('denied');
    });
  });
});

describe('ZoneRelay', () => {
  function relay(decision: RelayDecision, maxStreams = 10) {
    const channels = [new MemoryChannel(), new MemoryChannel()];
    const asked: string[][] = [];
    const records: ConnectionRecord[] = [];
    const zoneRelay = new ZoneRelay(
      {
        decide: () => decision,
        deliver: () => channels[0]!,
        forward: (_zone, forwarded) => {
          asked.push([...forwarded.via]);
          return channels.map((channel) => ({ channel })).values();
        },
        node: 'gw' as NodeName,
        maxStreams: () => maxStreams,
      },
      new Connections('0', { started: () => {}, ended: (record) => records.push(record) }),
    );
    const stream = new MemoryChannel();
    const open = () =>
      zoneRelay.accept(
        { zone: 'dc2', node: 'c' as NodeName, service: 'web' as ServiceName, via: [] },
        stream,
        peer,
        'p',
      );
    return { open, stream, channels, asked, records, zoneRelay };
  }

  it('tries the next gateway when one fails, and names itself in the request', () => {
    const { open, stream, channels, asked } = relay({ kind: 'forward', zone: 'dc2' });
    open();
    channels[0]!.close({ reason: 'unreachable', delivered: false });
    channels[1]!.handler.open!();
    expect(stream.accepted).toBe(true);
    expect(asked).toEqual([['gw']]);
  });

  it('refuses what zone/ refuses, and what goes beyond its bound', () => {
    const loop = relay({ kind: 'refuse', code: 'loop', detail: 'came back' });
    loop.open();
    expect(loop.stream.refusal).toEqual({ code: 'loop', detail: 'came back' });
    const full = relay({ kind: 'forward', zone: 'dc2' }, 1);
    full.open();
    full.open();
    expect(full.stream.refusal?.code).toBe('overload');
  });
});
