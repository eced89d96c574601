import http from 'node:http';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Retries, ServicePolicy } from '../../../src/model/policy.ts';
import { HttpMesh } from './mesh.ts';

let mesh: HttpMesh;
beforeEach(() => {
  mesh = new HttpMesh();
});
afterEach(() => mesh.close());

const until = (condition: () => unknown) =>
  vi.waitFor(() => expect(condition()).toBeTruthy(), { timeout: 10_000, interval: 5 });

function retries(some: Partial<Retries> = {}): Retries {
  return {
    ...{ on: ['connect-failure', 'reset', 'timeout', 'status'], statuses: [503], headers: [], attempts: 2 },
    ...{ methods: ['GET', 'PUT'], backoff: { base: 1, max: 5 }, replayBuffer: 64 << 10 },
    ...{ budget: { percent: 20, perSecond: 10 }, ...some },
  };
}

/** An instance that answers 503 and one that echoes. */
async function busyAndEcho(): Promise<{ refused: number }> {
  const seen = { refused: 0 };
  await mesh.serve((request, response) => {
    seen.refused++;
    request.resume();
    response.writeHead(503);
    response.end('busy');
  });
  await mesh.serve((request, response) => request.pipe(response));
  return seen;
}

test('an answer that a policy does not want is followed by another one, content and all', async () => {
  mesh.policy = { retries: retries() };
  const seen = await busyAndEcho();
  for (let i = 0; i < 10; i++) {
    const answer = await mesh.request('/', { method: 'PUT' }, `content ${i}`);
    expect([answer.statusCode, answer.text]).toEqual([200, `content ${i}`]);
  }
  expect(seen.refused).toBeGreaterThan(0);
  await until(() => mesh.records.length === 10);
  expect(mesh.active).toBe(0);
});

test('a server that never answers costs an attempt, and where there is no other a status', async () => {
  await mesh.raw(() => {});
  const [silent] = mesh.instances;
  await mesh.serve((_request, response) => response.end('here'));
  mesh.policy = { retries: retries({ perTryTimeout: 100 }) };
  for (let i = 0; i < 4; i++) expect((await mesh.request('/')).text).toBe('here');
  mesh.instances = [silent!];
  mesh.policy = { timeouts: { request: 200 } };
  const answer = await mesh.request('/');
  expect([answer.statusCode, answer.headers['mesh-error']]).toEqual([504, 'request-timeout']);
});

test('in a storm there are no more retries than the budget allows', async () => {
  let asked = 0;
  await mesh.serve((_request, response) => {
    asked++;
    response.writeHead(503);
    response.end();
  });
  mesh.policy = { retries: retries({ attempts: 3, budget: { percent: 20, perSecond: 1 } }) };
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  const requests = 400;
  const answers = await Promise.all(Array.from({ length: requests }, () => mesh.request('/', { agent })));
  agent.destroy();
  expect(answers.every(({ statusCode }) => statusCode === 503)).toBe(true);
  // 20 % of the requests, and one a second for the ten that are looked back on.
  expect(asked - requests).toBeLessThanOrEqual(requests * 0.2 + 10);
  expect(asked - requests).toBeGreaterThan(requests * 0.1);
});

test('policies may change at any time: each request follows one of them from its beginning to its end', async () => {
  await mesh.serve((request, response) => {
    request.resume();
    request.on('end', () => response.end(request.url));
  });
  const route = (path: string): ServicePolicy => ({
    retries: retries(),
    timeouts: { request: 10_000 },
    routes: [{ name: path, matches: [], percent: 100, rewrite: { path, host: `${path.slice(1)}.test` } }],
  });
  const policies = [{}, route('/a'), route('/b')];
  const expected = ['/own', '/a', '/b'];
  const hosts = new Set<string>();
  let swaps = 0;
  const swapping = setInterval(() => {
    mesh.policy = policies[swaps++ % policies.length]!;
  }, 1);
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  const caller = async () => {
    while (swaps < 200) {
      const answer = await mesh.request('/own', { agent, method: 'POST' }, 'x');
      expect(answer.statusCode).toBe(200);
      expect(expected).toContain(answer.text);
      hosts.add(answer.text);
    }
  };
  await Promise.all(Array.from({ length: 8 }, caller));
  clearInterval(swapping);
  agent.destroy();
  expect([...hosts].sort()).toEqual(['/a', '/b', '/own']);
  await until(() => mesh.records.every(({ reason }) => reason === 'done'));
  expect(new Set(mesh.records.map(({ route: name }) => name))).toEqual(new Set([undefined, '/a', '/b']));
});
