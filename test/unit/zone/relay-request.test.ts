import { describe, expect, test } from 'vitest';
import { type Endpoint, parseEndpoint } from '../../../src/model/address.ts';
import type { PeerIdentity } from '../../../src/model/peer.ts';
import type { MeshNode, NodeName } from '../../../src/model/service.ts';
import { judgeRelay } from '../../../src/zone/relay-request.ts';

const name = (text: string) => text as NodeName;
const node = (text: string, zone: string): MeshNode => ({
  name: name(text),
  zone,
  tunnel: parseEndpoint('10.0.0.1:15008') as Endpoint,
});
const nodes = new Map([node('db1', 'dc2'), node('moved', 'dc3')].map((known) => [known.name, known]));
const context = {
  node: name('gate2'),
  zone: 'dc2',
  maxHops: 3,
  findNode: (wanted: NodeName) => nodes.get(wanted),
  reaches: (zone: string) => zone === 'dc3',
};
const peer = (text: string, relay: boolean): PeerIdentity => ({
  node: name(text),
  callAs: new Set(),
  host: new Set(),
  relay,
  expiresAt: 0,
});
const ask = (from: PeerIdentity, zone: string, target: string, ...via: string[]) =>
  judgeRelay({ zone, node: name(target), via: via.map(name) }, from, context);

describe('a relay request', () => {
  test('of any node, for itself, reaches a node of this zone', () => {
    expect(ask(peer('web1', false), 'dc2', 'db1')).toEqual({ kind: 'deliver', node: nodes.get(name('db1')) });
  });

  test('for another zone goes on, where a gateway is known', () => {
    expect(ask(peer('web1', false), 'dc3', 'x')).toEqual({ kind: 'forward', zone: 'dc3' });
    expect(ask(peer('web1', false), 'dc9', 'x')).toMatchObject({ kind: 'refuse', code: 'unreachable' });
  });

  test('is passed on only by zone-agents, which say where it came from', () => {
    expect(ask(peer('gate1', true), 'dc2', 'db1', 'gate1')).toMatchObject({ kind: 'deliver' });
    expect(ask(peer('gate1', true), 'dc2', 'db1', 'gate0', 'gate1')).toMatchObject({ kind: 'deliver' });
    expect(ask(peer('web1', false), 'dc2', 'db1', 'web1')).toMatchObject({ kind: 'refuse', code: 'denied' });
    expect(ask(peer('gate1', true), 'dc2', 'db1', 'gate0')).toMatchObject({ kind: 'refuse', code: 'denied' });
  });

  test('that comes back, or goes too far, is a loop', () => {
    const gate1 = peer('gate1', true);
    expect(ask(gate1, 'dc3', 'x', 'gate2', 'gate1')).toMatchObject({ kind: 'refuse', code: 'loop' });
    expect(ask(gate1, 'dc3', 'x', 'gate1', 'gate0', 'gate1')).toMatchObject({ kind: 'refuse', code: 'loop' });
    expect(ask(gate1, 'dc3', 'x', 'a', 'b', 'gate1')).toMatchObject({ kind: 'refuse', code: 'loop' });
    expect(ask(gate1, 'dc3', 'x', 'b', 'gate1')).toMatchObject({ kind: 'forward' });
  });

  test('for a node that is not here is refused', () => {
    expect(ask(peer('web1', false), 'dc2', 'nobody')).toMatchObject({ kind: 'refuse', code: 'unreachable' });
    expect(ask(peer('web1', false), 'dc2', 'moved')).toMatchObject({
      kind: 'refuse',
      detail: 'node moved stands in zone dc3, not in dc2',
    });
  });
});
