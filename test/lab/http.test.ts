import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { balanced } from '../support/books.ts';
import type { CatalogueDocument, MeshHost } from '../support/mesh.ts';
import { type Running, waitFor } from '../support/process.ts';
import { at, Site } from '../support/site.ts';
import { type Host, Topology } from '../support/topology.ts';
import { Requests, StandingReader, talk, Watch, webServer } from '../support/web.ts';
import { twoZones } from '../support/zones.ts';

/*
 * Services that say `protocol: http`: each request is one of its own, on whatever path its instance is reached. The
 * tests are one story: the last ones kill what the first ones use.
 */

const families = ['ipv4', 'ipv6'] as const;
/** Addresses of services, at which nothing stands. */
const WHOLE = { ipv4: '10.81.100.1', ipv6: 'fd81:100::1' };
const WEB = 8080;
const FAR = 8090;
const GONE = 8099;
/** Ports of the instances. */
const ONE = 8081;
const TWO = 8082;
const BARE = 8083;
const NAMES = ['one', 'two'];
const MIB = 1024 * 1024;
/** An answer that is far larger than what any bound of an agent holds, and than what V8 takes its time to give back. */
const LARGE = 200 * MIB;
const SLACK_MIB = 64;

let site: Site;
let a: Host;
let b: Host;
let c: Host;
let caller: MeshHost;
let one: Running;

beforeAll(async () => {
  site = await Site.create(await Topology.create('mnht', twoZones));
  [a, b, c] = [site.host('a'), site.host('b'), site.host('c')];
  [one] = await Promise.all([
    webServer(b, ONE, 'one'),
    webServer(b, TWO, 'two'),
    webServer(c, ONE, 'far'),
    webServer(a, ONE, 'own'),
    webServer(b, BARE, 'bare'),
  ]);
  await site.start(
    {
      services: {},
      agents: ['a', 'b', 'c', 'gw1a', 'gw2a'],
      config: { daemon: { workers: 1 } },
      grants: { b: { host: ['web'] }, c: { host: ['far'] } },
    },
    (mesh) => mesh.writeCatalogue('http.yaml', catalogue()),
  );
  caller = site.mesh('a');
  for (const [port, name] of [
    [WEB, /one|two/],
    [FAR, /far/],
  ] as const)
    for (const family of families)
      await waitFor(`${name} answers`, async () => name.test((await curl(url(family, port))).stdout));
}, 60_000);
afterAll(() => site?.topology.stop());

/** What every registry says; `gone` has these instances. */
function catalogue(
  gone = [{ address: at(a.ipv4, ONE), node: 'a', zone: 'dc1', id: 'own' }],
): CatalogueDocument {
  const web = (port: number, id: string) => ({ address: at(b.ipv4, port), node: 'b', zone: 'dc1', id });
  const whole = (port: number) => ({
    addresses: families.map((family) => at(WHOLE[family], port)),
    ports: [port],
  });
  const far = { address: at(c.ipv4, ONE), node: 'c', zone: 'dc2', id: 'far' };
  const services = [
    { name: 'web', ...whole(WEB), instances: [web(ONE, 'one'), web(TWO, 'two')] },
    { name: 'far', ...whole(FAR), instances: [far] },
    { name: 'gone', ...whole(GONE), instances: gone },
    // No agent is said to stand before it.
    { name: 'bare', ...whole(BARE), instances: [{ address: at(b.ipv4, BARE), zone: 'dc1', id: 'bare' }] },
  ];
  return { services: services.map((service) => ({ protocol: 'http', ...service })) };
}

const url = (family: 'ipv4' | 'ipv6', port: number, path = '') => `http://${at(WHOLE[family], port)}/${path}`;

function curl(...args: readonly string[]) {
  return a.exec(['curl', '-gsS', '--max-time', '20', ...args]);
}

/** What the caller's agent wrote down of the requests of which it is true, once there are so many. */
function written(count: number, matches: (line: Line) => boolean): Promise<Line[]> {
  return waitFor(`${count} requests are written down`, async () => {
    const lines = (await caller.requestLog()).filter(matches);
    return lines.length >= count && lines;
  });
}
type Line = Awaited<ReturnType<MeshHost['requestLog']>>[number];

/** Sends bytes as they are; what comes back. */
async function raw(to: string, port: number, text: string): Promise<string> {
  return (await a.exec(['nc', '-w', '5', to, `${port}`], { input: text })).stdout;
}

/** Resident memory of the worker of an agent, in MiB. */
async function memoryOf(mesh: MeshHost): Promise<number> {
  const [pid] = await mesh.workers();
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return (Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024) / MIB;
}

describe.each(families)('%s', (family) => {
  test('requests of one connection find an instance each', async () => {
    const count = 20;
    const path = `spread-${family}`;
    const { stdout } = await curl(
      ...['-w', '%{num_connects}\n'],
      ...Array.from({ length: count }, () => url(family, WEB, path)),
    );
    const said = stdout.trim().split('\n');
    const names = said.filter((_, index) => index % 2 === 0);
    const connects = said.filter((_, index) => index % 2 === 1).map(Number);
    expect(names).toHaveLength(count);
    for (const name of NAMES) expect(names.filter((each) => each === name)).toHaveLength(count / 2);
    expect(connects).toEqual([1, ...Array.from({ length: count - 1 }, () => 0)]);
    const lines = await written(count, ({ target }) => target === `/${path}`);
    const [connection] = (lines[0]?.id ?? '').split('.');
    expect(lines.map(({ id }) => id)).toEqual(
      Array.from({ length: count }, (_, n) => `${connection}.${n + 1}`),
    );
    expect(lines.map(({ instance }) => instance)).toEqual(names);
    for (const line of lines) {
      expect(line).toMatchObject({
        ...{ service: 'web', callerService: 'shop', path: 'tunnel', zone: 'dc1', method: 'GET', status: 200 },
        ...{
          authority: at(WHOLE[family], WEB),
          requestBytes: 0,
          responseBytes: 4,
          reason: 'done',
          attempts: 1,
        },
      });
      expect(line.traceId).toMatch(/^[0-9a-f]{32}$/);
    }
    expect(lines.filter(({ reused }) => reused).length).toBeGreaterThanOrEqual(count - NAMES.length);
    for (const [channel, reused] of [
      ['new', false],
      ['reused', true],
    ] as const) {
      await waitFor(`${channel} channels are counted`, async () => {
        const all = (await caller.requestLog()).filter(
          (line) => line.service === 'web' && line.reused === reused,
        );
        const labels = ['service="web"', `channel="${channel}"`];
        return all.length === (await caller.metric('mesh_node_request_channels_total', ...labels));
      });
    }
  });

  test('to an instance in another zone, on this host, and without an agent', async () => {
    expect((await curl(url(family, FAR, `far-${family}`))).stdout).toBe('far\n');
    expect((await curl(url(family, GONE, `own-${family}`))).stdout).toBe('own\n');
    expect((await curl(url(family, BARE, `bare-${family}`))).stdout).toBe('bare\n');
    const names = ['far', 'own', 'bare'].map((name) => `/${name}-${family}`);
    const lines = await written(names.length, ({ target }) => names.includes(target ?? ''));
    const paths = lines.map(({ service, path }) => `${service} ${path}`);
    expect(paths).toEqual(['far relay', 'gone local', 'bare direct']);
  });

  test('a WebSocket', async () => {
    const messages = 18;
    expect(await talk(a, WHOLE[family], FAR, messages)).toEqual({ echoed: messages, code: 1000 });
    const [line] = await written(
      1,
      ({ status, authority }) => status === 101 && authority === at(WHOLE[family], FAR),
    );
    expect(line).toMatchObject({
      service: 'far',
      method: 'GET',
      target: '/talk?to=me',
      reason: 'done',
      path: 'relay',
    });
    // Every message, its frame, and the frame of the end.
    expect(line?.requestBytes).toBeGreaterThan(2 ** messages - 1);
    expect(line?.responseBytes).toBeGreaterThan(2 ** messages - 1);
  });

  test('an answer that is cut off is no whole one to the caller', async () => {
    // Of the content that a length had promised; and in the middle of chunks.
    for (const [verb, codes] of [
      ['cut', [18, 56]],
      ['cut-chunked', [18, 56]],
    ] as const) {
      const { code, stdout } = await curl(url(family, WEB, `${verb}/20000`));
      expect(codes).toContain(code);
      expect(stdout.length).toBeLessThanOrEqual(20_000);
      const [line] = await written(
        1,
        ({ target, authority }) => target === `/${verb}/20000` && authority === at(WHOLE[family], WEB),
      );
      expect(line).toMatchObject({ status: 200, reason: 'reset', attempts: 1 });
    }
  });
});

test('what a server is told of the request', async () => {
  const trace = 'aabbccddeeff00112233445566778899';
  const { stdout } = await curl(
    ...['-H', `traceparent: 00-${trace}-0011223344556677-01`, '-H', 'X-Own: kept'],
    ...['-H', 'Connection: x-mine', '-H', 'X-Mine: not for the server', url('ipv4', WEB, 'head')],
  );
  const { url: target, headers } = JSON.parse(stdout) as { url: string; headers: Record<string, string> };
  expect(target).toBe('/head');
  expect(headers).toMatchObject({
    host: at(WHOLE.ipv4, WEB),
    'x-own': 'kept',
    'x-forwarded-for': a.ipv4,
    'x-forwarded-proto': 'http',
    via: '1.1 a',
  });
  expect(headers['x-mine']).toBeUndefined();
  expect(headers['traceparent']).toMatch(new RegExp(`^00-${trace}-[0-9a-f]{16}-01$`));
  expect(headers['x-request-id']).toMatch(/^[0-9a-f-]{16,}$/);
  const [line] = await written(1, ({ traceId }) => traceId === trace);
  expect(line).toMatchObject({ target: '/head', status: 200 });
});

describe('answers of the agent itself', () => {
  test('400 for what two servers could take for two different requests', async () => {
    const text = `POST /both HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`;
    const said = await raw(WHOLE.ipv4, WEB, `${text}GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n`);
    expect(said.match(/^HTTP\/1\.1 \d+/gm)).toEqual(['HTTP/1.1 400']);
    expect(said).toMatch(/^mesh-error: length-and-coding\r$/m);
    expect(said).toMatch(/^connection: close\r$/m);
    await written(
      1,
      ({ reason, status, path }) => reason === 'length-and-coding' && status === 400 && path === 'none',
    );
    await waitFor('the rule is counted', async () =>
      caller.metric('mesh_node_request_refusals_total', 'rule="length-and-coding"'),
    );
  });

  test('503 where no instance is left, and the connection stays', async () => {
    const watch = Watch.start(a, WHOLE.ipv4, GONE);
    await watch.sees('200');
    await caller.writeCatalogue('http.yaml', catalogue([]));
    await watch.sees('503 no-instance');
    // Who connects meanwhile is refused at once.
    await waitFor('connect is refused', async () => (await curl(url('ipv4', GONE))).code === 7);
    await caller.writeCatalogue('http.yaml', catalogue());
    await watch.sees('200');
    expect(await watch.stop()).toBe(1);
    const refused = ({ service, status }: Line) => service === 'gone' && status === 503;
    const [line] = await written(1, refused);
    expect(line).toMatchObject({ reason: 'no-instance', instance: null, path: 'none', attempts: 0 });
    const labels = ['service="gone"', 'status_class="5xx"', 'reason="no-instance"', 'path="none"'];
    await waitFor('each is counted', async () => {
      const counted = await caller.metric('mesh_node_requests_total', ...labels);
      return counted === (await caller.requestLog()).filter(refused).length;
    });
  });

  test('502 for an answer that breaks a rule', async () => {
    const { stdout } = await curl('-i', url('ipv4', WEB, 'broken'));
    expect(stdout).toMatch(/^HTTP\/1\.1 502 /);
    expect(stdout).toMatch(/^mesh-error: length-repeated\r$/m);
    expect((await curl(url('ipv4', WEB))).code).toBe(0);
  });
});

test('a reader that stands still makes no agent hold its answer', async () => {
  const agents = [caller, site.mesh('b')];
  const before = await Promise.all(agents.map(memoryOf));
  const reader = await StandingReader.start(a, WHOLE.ipv4, WEB, LARGE);
  const received = () => caller.metric('mesh_node_tunnel_bytes_total', 'received');
  // Nothing moves any more: whatever wanted to be held is held.
  let last = await received();
  await waitFor(
    'the answer stands still',
    async () => {
      const now = await received();
      const still = now - last < MIB;
      last = now;
      return still;
    },
    { intervalMs: 500 },
  );
  for (const [index, agent] of agents.entries())
    expect(await memoryOf(agent), agent.host.name).toBeLessThan(before[index]! + SLACK_MIB);
  expect(await reader.finish()).toEqual({ bytes: LARGE, match: true });
  for (const [index, agent] of agents.entries())
    expect(await memoryOf(agent), agent.host.name).toBeLessThan(before[index]! + SLACK_MIB);
  const [line] = await written(1, ({ target }) => target === `/blob/${LARGE}`);
  expect(line).toMatchObject({ status: 200, responseBytes: LARGE, reason: 'done' });
});

test('an instance that is killed under load costs no GET', async () => {
  const parallel = 16;
  const requests = await Requests.start(a, WHOLE.ipv4, WEB, parallel);
  one.kill('SIGKILL');
  await one.ended;
  await requests.progress(300);
  await webServer(b, ONE, 'again');
  const answered = ({ instance, responseBytes }: Line) =>
    instance === 'one' && responseBytes === 'again\n'.length;
  await written(1, answered);
  const { by, failures } = await requests.stop();
  expect(failures).toEqual({});
  for (const name of ['one', 'two', 'again']) expect(by[name]).toBeGreaterThan(0);
});

test('every request and connection is over, written down and counted once', async () => {
  for (const mesh of [caller, site.mesh('b'), site.mesh('c')]) await balanced(mesh, true);
  expect(await caller.metric('mesh_node_requests_active')).toBe(0);
  const lines = await caller.requestLog();
  expect(await caller.metric('mesh_node_requests_total')).toBe(lines.length);
  expect(new Set(lines.map(({ id }) => id)).size).toBe(lines.length);
});

test('past an agent that is gone, where the service allows it', async () => {
  await site.mesh('b').signalAll('SIGKILL');
  await waitFor('web answers', async () => (await curl(url('ipv4', WEB, 'past'))).code === 0);
  const [line] = await written(1, ({ target, path }) => target === '/past' && path === 'direct');
  expect(line).toMatchObject({ service: 'web', status: 200, reason: 'done' });
});
