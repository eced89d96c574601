import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { Balancer } from '../../../src/balance/balancer.ts';
import { workerProbes } from '../../../src/daemon/worker/worker-probes.ts';
import { Poller } from '../../../src/io/poller.ts';
import { TcpChannel } from '../../../src/io/socket.ts';
import { parseIp } from '../../../src/model/address.ts';
import type { ServicePolicy } from '../../../src/model/policy.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { waitFor } from '../../support/process.ts';

const ip = parseIp('127.0.0.1')!;
const cleanUp: (() => void)[] = [];
afterEach(() => {
  for (const step of cleanUp.splice(0)) step();
});

/** A server that counts its probes and answers them as the test says. */
async function server() {
  const state = { status: 200, agents: new Set<string | undefined>(), probes: 0 };
  const listening = http.createServer((request, response) => {
    state.agents.add(request.headers['user-agent']);
    state.probes++;
    response.writeHead(state.status).end('x'.repeat(2000));
  });
  await new Promise<void>((resolve) => listening.listen(0, ip, resolve));
  cleanUp.push(() => listening.close());
  const { port } = listening.address() as AddressInfo;
  const instance: Instance = {
    id: `i${port}` as InstanceId,
    address: { ip, port },
    zone: 'z',
    labels: {},
    weight: 100,
    draining: false,
  };
  const connections = () =>
    new Promise<number>((resolve) => listening.getConnections((_error, count) => resolve(count)));
  return { state, instance, connections, close: () => listening.close() };
}

it('instances that answer badly or not at all get nothing until they answer well again', async () => {
  const well = await server();
  const sick = await server();
  const service: Service = {
    name: 'web' as ServiceName,
    protocol: 'http',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances: [well.instance, sick.instance],
  };
  const policy: ServicePolicy = {
    probe: {
      http: { path: '/healthz', statuses: [{ from: 200, to: 299 }] },
      ...{ interval: 100, timeout: 2000, rise: 2, fall: 2 },
    },
  };
  const poller = new Poller();
  const outcomes = new Map<string, number>();
  const dial = ({ address }: Instance) => TcpChannel.connect(poller, address, { timeoutMs: 5000 });
  const probes = workerProbes({
    policy: () => policy.probe,
    open: (_service, instance) => ({ channel: dial(instance), path: 'local', viaAgent: false }),
    past: (_service, instance) => dial(instance),
    after: (milliseconds, expired) => poller.deadlines.after(milliseconds, expired),
    settings: () => ({ agentPatience: 1000, connectTimeout: 5000 }),
    report: (name, id, healthy) => balancer.probed(name, id, healthy),
    release: (name) => balancer.release(name),
    probed: (_service, outcome) => outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1),
  });
  const balancer: Balancer = new Balancer({
    locality: { node: 'here' as NodeName, zone: 'z', otherZones: [] },
    ejection: { ejectAfter: 3, ejectBase: 1000, ejectMax: 1000, maxEjectedPercent: 50 },
    policy: () => policy,
    onUse: (used) => probes.inUse(used),
  });
  cleanUp.push(
    () => probes.stop(),
    () => poller.close(),
  );
  const picked = () => new Set(Array.from({ length: 10 }, () => balancer.pick(service, new Set())?.id));

  expect(picked().size).toBe(2);
  sick.state.status = 503;
  await waitFor('the sick one is set aside', () => picked().size === 1);
  expect(picked()).toEqual(new Set([well.instance.id]));
  expect(balancer.view(service.name)[1]).toMatchObject({ state: 'ejected', reason: 'probe', active: 0 });
  sick.state.status = 200;
  await waitFor('it is back', () => picked().size === 2);
  expect(well.state.agents).toEqual(new Set(['mesh-node-probe']));
  expect(outcomes.get('unreached')).toBeGreaterThanOrEqual(2);
  sick.close();
  await waitFor('the dead one is set aside', () => picked().size === 1);
  probes.stop();
  const { probes: before } = well.state;
  await waitFor('probes leave nothing open', async () => (await well.connections()) === 0);
  expect(well.state.probes - before).toBeLessThanOrEqual(1);
});
