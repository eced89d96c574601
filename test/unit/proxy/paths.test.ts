import { describe, expect, test } from 'vitest';
import { AccessControl } from '../../../src/access/access-control.ts';
import type { ClientAddress, Endpoint } from '../../../src/model/address.ts';
import { parseEndpoint } from '../../../src/model/address.ts';
import { noPolicy, type ServicePolicy } from '../../../src/model/policy.ts';
import type { Instance, MeshNode, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot } from '../../../src/model/snapshot.ts';
import { AdmittedDelivery } from '../../../src/proxy/admitted-delivery.ts';
import type { AgentStream } from '../../../src/proxy/outbound-dependencies.ts';
import { Paths } from '../../../src/proxy/paths.ts';
import { Gateways } from '../../../src/zone/gateways.ts';
import { MemoryChannel } from './memory-channel.ts';

const PATIENCE = 1000;
const node = (name: string) => name as NodeName;

class Stream extends MemoryChannel implements AgentStream {
  readonly bytesSent = 0;
  readonly doubtful = false;
  silence = 0;
  doubt(): void {}
}

function setup(
  snapshot: Snapshot = emptySnapshot,
  policy: ServicePolicy = noPolicy,
  admitted?: AdmittedDelivery,
) {
  const direct = new MemoryChannel();
  const transitions: string[] = [];
  const gateways = new Gateways({
    backoff: { base: 100, max: 1000 },
    now: () => 0,
    random: () => 0,
    onTransition: ({ gateway, behind, to }) =>
      transitions.push(`${gateway}${behind === undefined ? '' : ` for ${behind.service}`} ${to}`),
  });
  const address = parseEndpoint('10.0.0.1:15008') as Endpoint;
  gateways.configure([
    { zone: 'far', gateways: ['g1', 'g2'].map((name) => ({ node: node(name), address })) },
  ]);
  const silences: Record<string, number> = {};
  const streams: Stream[] = [];
  const paths = new Paths({
    node: node('me'),
    zone: () => 'near',
    snapshot: () => snapshot,
    policy: () => policy,
    callerService: () => undefined,
    maxHops: () => 4,
    agentPatience: () => PATIENCE,
    gateways,
    delivery: { there: () => direct, here: () => direct } as never,
    admitted: admitted ?? ({ here: () => direct } as never),
    openStream: (target) => {
      const stream = new Stream();
      stream.silence = silences[target.node] ?? 0;
      streams.push(stream);
      return stream;
    },
  });
  const relays = (...via: string[]) => [
    ...paths.relays({ zone: 'far', node: node('c'), service: 'web' as ServiceName, via: via.map(node) }),
  ];
  return { paths, relays, silences, streams, transitions };
}

test('each hop has half the patience of the one before, less what its tunnel owes already', () => {
  const { relays, silences } = setup();
  expect(relays().map(({ patience }) => patience)).toEqual([500, 500]);
  expect(relays('me').map(({ patience }) => patience)).toEqual([250, 250]);
  silences['g1'] = 400;
  silences['g2'] = 10_000;
  expect(relays().map(({ patience }) => patience)).toEqual([100, -9500]);
});

test('a gateway that is silent is remembered; of one that lives, only what lies behind it is', () => {
  const { relays, streams, transitions } = setup();
  const late = { reason: 'timeout', delivered: false, source: 'peer' } as const;
  const [silent, alive] = relays();
  streams[0]!.silence = 500;
  silent!.failed!(late);
  alive!.failed!(late);
  expect(transitions).toEqual(['g1 down', 'g2 for web down']);
});

describe('two hops', () => {
  const host = (name: string, zone: string) => ({
    name: node(name),
    zone,
    tunnel: { ip: '10.0.0.2', port: 1 },
  });
  const instance = (on: string, zone: string) => ({ id: 'i', node: node(on), zone }) as unknown as Instance;
  const service = (mode: string) => ({ name: 'web', mode, instances: [] }) as unknown as Service;
  const origin = { address: undefined, program: undefined };
  const known = applyDelta(emptySnapshot, {
    ...{ base: 0, services: [], removedServices: [], removedNodes: [] },
    nodes: [host('b', 'near'), host('c', 'far')] as MeshNode[],
  });

  test('past the other agent where its host can be reached, and only where the service may be', () => {
    const { paths } = setup(known, { hops: 'two' });
    const ways = [
      paths.open(service('permissive'), instance('b', 'near'), origin),
      paths.open(service('strict'), instance('b', 'near'), origin),
      paths.open(service('permissive'), instance('c', 'far'), origin),
      paths.open(service('permissive'), instance('me', 'near'), origin),
    ];
    expect(ways.map(({ path }) => path)).toEqual(['direct', 'tunnel', 'relay', 'local']);
    expect(ways[0]).toMatchObject({ viaAgent: false });
  });

  test('three, where nothing else is said', () => {
    const { paths } = setup(known);
    expect(paths.open(service('permissive'), instance('b', 'near'), origin).path).toBe('tunnel');
  });
});

test('access rules are asked about callers of the same host, and not about the agent itself', () => {
  const policy: ServicePolicy = {
    access: {
      rules: [{ name: 'admin', action: 'deny', callers: ['*'], paths: [{ kind: 'exact', value: '/admin' }] }],
      otherwise: 'deny',
      shadow: false,
    },
  };
  const now = { policy };
  const decided: string[] = [];
  const access = new AccessControl({
    policy: () => now.policy,
    decided: (_service, action) => decided.push(action),
  });
  const channel = new MemoryChannel();
  const { paths } = setup(
    emptySnapshot,
    policy,
    new AdmittedDelivery({ here: () => channel } as never, access, () => channel),
  );
  const web = { name: 'web' as ServiceName, protocol: 'http' } as Service;
  const here = { node: node('me'), address: parseEndpoint('10.0.0.1:80')! } as Instance;
  const noted: string[] = [];
  const origin = {
    address: parseEndpoint('10.0.0.1:4000') as ClientAddress,
    program: 'unit:front.service',
    request: { method: 'GET', path: '/admin' },
    noted: (what: string) => void noted.push(what),
  };
  expect(paths.open(web, here, origin).channel).not.toBe(channel);
  expect(paths.mayReuse(web, here, origin)).toBe(false);
  expect(paths.open(web, here, { address: undefined, program: undefined }).channel).toBeInstanceOf(
    MemoryChannel,
  );
  now.policy = { access: { ...policy.access!, shadow: true } };
  expect(paths.open(web, here, origin).channel).toBe(channel);
  expect(paths.mayReuse(web, here, origin)).toBe(true);
  expect(paths.mayReuse(web, { ...here, node: node('c') }, origin)).toBe(true);
  expect(decided).toEqual(['deny', 'shadow-deny', 'shadow-deny']);
  expect(noted.map((what) => what.split(':')[0])).toEqual(['deny', 'shadow-deny', 'shadow-deny']);
});
