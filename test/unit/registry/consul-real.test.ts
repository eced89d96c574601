import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { parseIp } from '../../../src/model/address.ts';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { ConsulSource } from '../../../src/registry/consul-source.ts';
import { context, quiet } from './source.conformance.ts';

// Consul is packaged by its maker alone; where its program is at hand, what the fake agent says is compared with it.
const missing = !(process.env['PATH'] ?? '').split(delimiter).some((directory) => {
  try {
    accessSync(join(directory, 'consul'), constants.X_OK);
    return true;
  } catch {
    return false;
  }
});
if (missing) process.stdout.write('skipped: real Consul; there is no program consul in PATH\n');

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe.skipIf(missing)('a real Consul agent', () => {
  const soon = { timeout: 30_000, interval: 20 };
  let port: number;
  let agent: ChildProcess;
  let catalogue: Catalogue;
  const put = async (path: string, body: unknown) => {
    const request = { method: 'PUT', body: JSON.stringify(body) };
    const response = await fetch(`http://127.0.0.1:${port}/v1/agent/service/${path}`, request);
    expect(response.status).toBe(200);
  };
  const instances = () =>
    [...catalogue.snapshot.services.values()].flatMap(({ name, instances: all }) =>
      all.map((each) => ({ service: name as string, ...each })),
    );

  beforeAll(async () => {
    port = await freePort();
    const others = ['server', 'serf-lan'].map(async (what) => `-${what}-port=${await freePort()}`);
    const none = ['dns', 'grpc', 'grpc-tls', 'serf-wan'].map((what) => `-${what}-port=-1`);
    const where = ['-bind=127.0.0.1', '-client=127.0.0.1', `-http-port=${port}`];
    agent = spawn('consul', ['agent', '-dev', ...where, ...none, ...(await Promise.all(others))], {
      stdio: 'ignore',
    });
    const source = new ConsulSource({
      address: { ip: parseIp('127.0.0.1')!, port },
      datacenter: undefined,
      zone: undefined,
      tags: [],
      tokenFile: undefined,
      tls: undefined,
      stale: true,
      resyncInterval: 30_000,
      timeout: 5000,
      context,
    });
    catalogue = new Catalogue([source], quiet);
    catalogue.start();
    await vi.waitFor(() => expect(source.status.state).toBe('synced'), soon);
  });
  afterAll(async () => {
    await catalogue.stop();
    const gone = once(agent, 'exit');
    agent.kill();
    await gone;
  });

  test('tells what is registered, changed and deregistered', async () => {
    const web = { Name: 'web', Address: '127.0.1.1', Port: 80, Tags: ['version=2'] };
    await put('register', { ...web, Meta: { 'mesh-node-zone': 'dc7' }, Weights: { Passing: 7, Warning: 1 } });
    const expected = { service: 'web', id: '127.0.1.1:80', zone: 'dc7', weight: 7, labels: { version: '2' } };
    await vi.waitFor(() => expect(instances()).toEqual([expect.objectContaining(expected)]), soon);
    await put('register', { ...web, Port: 81 });
    const changed = { id: '127.0.1.1:81', zone: 'here', weight: 100 };
    await vi.waitFor(() => expect(instances()).toEqual([expect.objectContaining(changed)]), soon);
    await put('deregister/web', undefined);
    await vi.waitFor(() => expect(catalogue.snapshot.services.size).toBe(0), soon);
    expect(catalogue.status.registries[0]).toMatchObject({ state: 'synced', problems: [] });
  });
});
