import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import type { CatalogueDocument, MeshHost } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { at, Site } from '../support/site.ts';
import { type Host, Topology } from '../support/topology.ts';
import { Requests, type RequestsDone, webFleet, webServer } from '../support/web.ts';
import { twoZones } from '../support/zones.ts';

/* Documents of /etc/mesh-node/policies.d that change under traffic: what they promise holds for every request. */

const WHOLE = '10.81.100.1';
const WEB = 8080;
const FLEET = 8090;
const ONE = 8081;
const TWO = 8082;
const FIRST = 9000;
const MANY = 11;
/** The slow one of them takes longer than a second. */
const SLOW_MS = 1200;
/** Requests of one measurement: enough for a share to be told from another. */
const SAMPLE = 2000;

let site: Site;
let a: Host;
let b: Host;
/** One worker, and four. */
let caller: MeshHost;
let other: MeshHost;

beforeAll(async () => {
  site = await Site.create(await Topology.create('mnpo', twoZones));
  [a, b] = [site.host('a'), site.host('b')];
  await Promise.all([
    webServer(b, ONE, 'v1'),
    webServer(b, TWO, 'v2'),
    webFleet(b, FIRST, MANY, 'many', SLOW_MS),
  ]);
  await site.start(
    {
      services: {},
      agents: ['a', 'b'],
      configs: { a: { daemon: { workers: 1 } }, b: { daemon: { workers: 4 } } },
      grants: { b: { host: ['web', 'fleet'] } },
    },
    (mesh) => mesh.writeCatalogue('http.yaml', catalogue()),
  );
  [caller, other] = [site.mesh('a'), site.mesh('b')];
  for (const [host, port] of [a, b].flatMap((host) => [WEB, FLEET].map((port) => [host, port] as const)))
    await waitFor(`${port} answers`, async () => (await get(host, port)).code === 0);
}, 60_000);
afterAll(() => site?.topology.stop());

function catalogue(): CatalogueDocument {
  const web = (port: number, version: string) => ({
    ...{ address: at(b.ipv4, port), node: 'b', zone: 'dc1', id: version, labels: { version } },
  });
  const whole = (port: number) => ({ protocol: 'http', addresses: [at(WHOLE, port)], ports: [port] });
  return {
    services: [
      { name: 'web', ...whole(WEB), instances: [web(ONE, 'v1'), web(TWO, 'v2')] },
      {
        name: 'fleet',
        ...whole(FLEET),
        instances: Array.from({ length: MANY }, (_, i) => ({
          ...{ address: at(b.ipv4, FIRST + i), node: 'b', zone: 'dc1', id: `many-${i}` },
        })),
      },
    ],
  };
}

function get(host: Host, port: number, path = '', ...options: readonly string[]) {
  return host.exec(['curl', '-gsS', '--max-time', '20', ...options, `http://${at(WHOLE, port)}/${path}`]);
}

/** What a command of the caller's agent prints. */
async function cli(...args: readonly string[]): Promise<string> {
  return (await caller.cli(args)).stdout;
}

/** So many requests on connections that stay. */
async function measure(
  host: Host,
  port: number,
  parallel: number,
  path = '/',
  count = SAMPLE,
): Promise<RequestsDone> {
  const requests = await Requests.start(host, WHOLE, port, parallel, path);
  await requests.progress(count);
  return requests.stop();
}

const canary = (percent: number) => ({
  service: 'web',
  routes: [
    { name: 'canary', percent, to: [{ subset: { version: 'v2' }, weight: 1 }] },
    { name: 'rest', to: [{ subset: { version: 'v1' }, weight: 1 }] },
  ],
});

describe('a canary', () => {
  test('0 → 10 → 50 → 100 % under load: no request fails, and shares are what was said', async () => {
    const beside = await Requests.start(a, WHOLE, WEB, 4);
    for (const percent of [0, 10, 50, 100]) {
      await caller.sayPolicies(canary(percent));
      const { by, failures, done } = await measure(a, WEB, 4);
      expect(failures).toEqual({});
      const share = (by['v2'] ?? 0) / done;
      // Five standard deviations of so many tosses; of none and all of them, nothing.
      const bound = 5 * Math.sqrt(((percent / 100) * (1 - percent / 100)) / done);
      expect(Math.abs(share - percent / 100), `${percent} %: ${share}`).toBeLessThanOrEqual(bound);
    }
    expect((await beside.stop()).failures).toEqual({});
  });

  test('a policy that is swapped every 100 ms, at times for one that is refused', async () => {
    const requests = await Requests.start(a, WHOLE, WEB, 8);
    for (let i = 0; i < 30; i++) {
      const document = i % 10 === 5 ? { service: 'web', nonsense: true } : canary((i * 7) % 101);
      await caller.writePolicies('said.yaml', stringify(document));
      await pause(100);
    }
    await caller.sayPolicies(canary(0));
    const { failures, by } = await requests.stop();
    expect(failures).toEqual({});
    expect(Object.keys(by).sort()).toEqual(['v1', 'v2']);
    const events = await cli('events');
    expect(events).toMatch(/policy .*said\.yaml:\d+/);
  });
});

describe('one slow instance of eleven', () => {
  test('peak EWMA keeps 99.9 % under a second; round robin does not', async () => {
    const shares: Record<string, number> = {};
    for (const algorithm of ['round-robin', 'peak-ewma']) {
      await caller.sayPolicies({ service: 'fleet', balance: { algorithm } });
      const { failures, late, done } = await measure(
        a,
        FLEET,
        16,
        '/',
        algorithm === 'peak-ewma' ? 6000 : 500,
      );
      expect(failures).toEqual({});
      shares[algorithm] = 1 - late / done;
    }
    console.log('answered within a second:', shares);
    expect(shares['peak-ewma']).toBeGreaterThanOrEqual(0.999);
    expect(shares['round-robin']).toBeLessThan(0.97);
  });
});

test('a storm: retries stay within their budget', async () => {
  const budget = { percent: 20, perSecond: 10 };
  await caller.sayPolicies({
    service: 'fleet',
    retries: { on: ['status'], statuses: [503], attempts: 3, budget, backoff: { base: '1ms', max: '2ms' } },
  });
  const asked = async () => Number((await get(a, FLEET, 'count')).stdout);
  const before = await asked();
  const { done, took, failures } = await measure(a, FLEET, 8, '/busy');
  const retries = (await asked()) - before - done;
  expect(Object.keys(failures)).toEqual(['503 undefined busy']);
  // Those of ten seconds are saved, and the last answers may be of requests that nobody counted any more.
  expect(retries).toBeLessThanOrEqual((done * budget.percent) / 100 + budget.perSecond * (10 + took / 1000));
  expect(retries).toBeGreaterThan((done * budget.percent) / 200);
});

describe('rate limits', () => {
  test.each([
    ['one worker', () => [caller, a] as const],
    ['four workers', () => [other, b] as const],
  ])('%s: what the host may do, and no more', async (_, whose) => {
    const [mesh, host] = whose();
    await mesh.sayPolicies({ service: 'web', rateLimits: [{ name: 'all', rate: '200/s', burst: 20 }] });
    const { by, took, failures } = await measure(host, WEB, 16);
    const good = Object.values(by).reduce((sum, count) => sum + count, 0);
    const due = (took / 1000) * 200;
    expect(
      Object.keys(failures).every((text) => text.startsWith('429 rate-limit')),
      JSON.stringify(failures),
    ).toBe(true);
    expect(good).toBeLessThanOrEqual(due + 20);
    expect(good).toBeGreaterThan(due * 0.8);
    const { stdout } = await get(host, WEB, '', '-i');
    if (stdout.startsWith('HTTP/1.1 429')) expect(stdout).toMatch(/^retry-after: 1\r$/m);
    expect(await mesh.metric('mesh_node_rate_limited_total', 'limit="all"')).toBeGreaterThan(0);
  });
});

test('a circuit breaker refuses what is too many, and says so everywhere', async () => {
  await caller.sayPolicies({ service: 'web', circuitBreaker: { requests: 2 } });
  const { by, failures } = await measure(a, WEB, 8, '/wait/20', 500);
  expect(Object.keys(by)).not.toEqual([]);
  expect(Object.keys(failures).every((text) => text.startsWith('503 overload'))).toBe(true);
  expect(await cli('events')).toMatch(/circuit-breaker +web +requests: closed → open/);
  await waitFor('it closes', async () => {
    await get(a, WEB);
    return (await caller.metric('mesh_node_circuit_breaker_open', 'resource="requests"')) === 0;
  });
});

test('explain says what would become of a request, and why what became of one', async () => {
  await caller.sayPolicies({
    service: 'web',
    routes: [
      { name: 'eve', match: { headers: { 'x-user': 'eve' } }, subset: { version: 'v2' } },
      { name: 'away', match: { path: { prefix: '/away' } }, redirect: { status: 302, path: '/here' } },
      { name: 'broken', match: { path: '/broken' }, fault: { abort: { status: 418, percent: 100 } } },
    ],
  });
  const asked = `http://${at(WHOLE, WEB)}/x`;
  const explained = await cli('explain', asked, '-H', 'x-user: eve');
  expect(explained).toMatch(/route +by route eve/);
  expect(explained).toMatch(/^ +v1 .* not in the subset: version is not v2$/m);
  expect(explained).toMatch(/^\* +v2 .* tunnel +b /m);
  for (let i = 0; i < 4; i++) expect((await get(a, WEB, 'x', '-H', 'x-user: eve')).stdout).toBe('v2\n');
  const moved = await get(a, WEB, 'away/x?q=1', '-i');
  expect(moved.stdout).toMatch(/^HTTP\/1\.1 302 /);
  expect(moved.stdout).toMatch(/^location: \/here\/x\?q=1\r$/m);
  expect((await get(a, WEB, 'broken', '-i')).stdout).toMatch(
    /^HTTP\/1\.1 418 .*\r\n(?:.*\r\n)*mesh-error: fault\r/m,
  );
  const line = await waitFor('the request is written down', async () =>
    (await caller.requestLog()).find(({ target, service }) => target === '/x' && service === 'web'),
  );
  const told = await cli('why', String(line.id));
  expect(told).toMatch(/asked for +GET .*\/x\n/);
  expect(told).toMatch(/by route +eve\n/);
  expect(told).toMatch(/went to +v2 in dc1 \(tunnel/);
  expect(told).toMatch(/ended +done/);
});

test('two hops: past the other agent, where the operator says so', async () => {
  await caller.sayPolicies({ service: 'web', hops: 'two' });
  await get(a, WEB, 'two-hops');
  const line = await waitFor('the request is written down', async () =>
    (await caller.requestLog()).find(({ target }) => target === '/two-hops'),
  );
  expect(line).toMatchObject({ path: 'direct', status: 200 });
});
