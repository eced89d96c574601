import { describe, expect, it } from 'vitest';
import { AccessControl } from '../../../src/access/access-control.ts';
import { RequestGuard } from '../../../src/http/request-guard.ts';
import { endpointKey, parseEndpoint } from '../../../src/model/address.ts';
import type { ConnectionRecord } from '../../../src/model/connection.ts';
import type { PeerIdentity } from '../../../src/model/peer.ts';
import type { ServicePolicy } from '../../../src/model/policy.ts';
import type { InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot } from '../../../src/model/snapshot.ts';
import { AccessRecheck } from '../../../src/proxy/access-recheck.ts';
import { AdmittedDelivery } from '../../../src/proxy/admitted-delivery.ts';
import { Connections } from '../../../src/proxy/connections.ts';
import { Delivery } from '../../../src/proxy/delivery.ts';
import { Inbound } from '../../../src/proxy/inbound.ts';
import { type RelayDecision, ZoneRelay } from '../../../src/proxy/zone-relay.ts';
import { MemoryChannel } from './memory-channel.ts';

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
const snapshot = applyDelta(emptySnapshot, {
  base: 0,
  services: [web],
  removedServices: [],
  nodes: [],
  removedNodes: [],
});

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
    { snapshot: () => snapshot, node: 'here' as NodeName, delivery, admitted },
    connections,
  );
  const recheck = new AccessRecheck({ connections, access, snapshot: () => snapshot });
  return { inbound, dialled, records, decisions, now, recheck, stream: new MemoryChannel() };
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
