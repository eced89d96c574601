import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Authority, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { nginx, ownDirectory, redis } from '../support/servers.ts';
import { at } from '../support/site.ts';
import { type Host, NOBODY, Topology } from '../support/topology.ts';

/*
 * Programs that nobody here wrote, and services of which the catalogue says no protocol, shares an address, or says that
 * they are a Redis: what the caller's agent finds out, and what it counts.
 */

const WEB = 8080;
/** A server that speaks first, at a port that says nothing. */
const GREETS = 7001;
const TLS = 8443;
const REDIS = 6379;
/** At which all of these services stand, and a server that is none of them. */
const SHARED = 9443;
const NAMED: Readonly<Record<string, number>> = { one: 8444, two: 8445 };
const families = ['ipv4', 'ipv6'] as const;
const PYTHON = '/usr/bin/python3';

const GREETER = `
import socket, threading
server = socket.create_server(('::', ${GREETS}), family=socket.AF_INET6, dualstack_ipv6=True)
def serve(peer):
    peer.sendall(b'220 ready\\r\\n')
    while data := peer.recv(4096): peer.sendall(data)
    peer.close()
while True: threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
`;
/** Milliseconds until the greeting; then what comes back of a line that could be the beginning of a request. */
const GREETED = `
import socket, sys, time
began = time.monotonic()
peer = socket.create_connection((sys.argv[1], ${GREETS}))
peer.recv(4096)
print(int((time.monotonic() - began) * 1000))
peer.sendall(b'GET'); print(peer.recv(4096).decode()); peer.close()
`;

let topology: Topology;
let a: Host;
let b: Host;
let caller: MeshHost;

beforeAll(async () => {
  topology = await Topology.create('mnpd', {
    networks: { lan: { ipv4: '10.86.1', ipv6: 'fd86:1', router: false } },
    hosts: { a: { lan: 1 }, b: { lan: 2 } },
  });
  [a, b] = [topology.host('a'), topology.host('b')];
  await Promise.all([
    nginx(b, WEB, 'web'),
    redis(b, REDIS),
    b.listening(GREETS, b.spawn('greeter', [PYTHON, '-c', GREETER], { user: NOBODY })),
    ...[['own', SHARED] as const, ['plain', TLS] as const, ...Object.entries(NAMED)].map(tlsServer),
  ]);
  const program = await Program.prepare(topology);
  const authority = await Authority.create(join(topology.directory, 'ca'));
  const instances = (port: number) =>
    families.map((family) => ({ address: at(b.address(family), port), node: 'b', zone: 'dc1' }));
  const catalogue = {
    services: [
      { name: 'web', instances: instances(WEB) },
      { name: 'greets', instances: instances(GREETS) },
      { name: 'secure', instances: instances(TLS) },
      { name: 'cache', protocol: 'redis', instances: instances(REDIS) },
      ...Object.entries(NAMED).map(([name, port]) => ({
        name,
        hosts: [`${name}.example`],
        addresses: families.map((family) => at(b.address(family), SHARED)),
        instances: instances(port),
      })),
    ],
    nodes: [a, b].map(({ name, ipv4 }) => ({ name, zone: 'dc1', tunnel: at(ipv4, TUNNEL_PORT) })),
  };
  const host = catalogue.services.map(({ name }) => name);
  [caller] = (await Promise.all(
    [a, b].map((each) =>
      MeshHost.start(each, program, authority, {
        ...{ zone: 'dc1', catalogue, grants: each === a ? { callAs: ['shop'] } : { host } },
        config: { daemon: { workers: 1 }, ...(each === a ? { node: { callAs: 'shop' } } : {}) },
      }),
    ),
  )) as [MeshHost];
}, 60_000);
afterAll(() => topology?.stop());

/** Shows a certificate of its own, so that whoever is reached can be told. */
async function tlsServer([name, port]: readonly [string, number]): Promise<void> {
  const directory = await ownDirectory(b, `tls-${name}`);
  const [key, certificate] = [join(directory, 'key'), join(directory, 'certificate')];
  await b.must(
    [
      ...['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-subj', `/CN=${name}`, '-days', '2', '-keyout', key, '-out', certificate],
    ],
    { user: NOBODY },
  );
  const command = [
    'openssl',
    's_server',
    '-accept',
    `${port}`,
    '-key',
    key,
    '-cert',
    certificate,
    '-www',
    '-quiet',
  ];
  await b.listening(port, b.spawn(`tls-${name}`, command, { user: NOBODY }));
}

/** Name in the certificate that a TLS client is shown. */
async function shown(to: string, name?: string): Promise<string | undefined> {
  const naming = name === undefined ? ['-noservername'] : ['-servername', name];
  const { stdout } = await a.exec(['openssl', 's_client', '-connect', to, ...naming], { input: '' });
  return /^subject=CN = (.*)$/m.exec(stdout)?.[1];
}

const detected = (outcome: string) =>
  caller.metric('mesh_node_protocol_detected_total', `outcome="${outcome}"`);

function counted(what: string, value: number, count: () => Promise<number>): Promise<unknown> {
  return waitFor(`${value} ${what}`, async () => (await count()) === value);
}

describe.each(families)('a service of which nobody says what it speaks, %s', (family) => {
  test('requests of curl become requests', async () => {
    const before = await detected('http');
    const url = `http://${at(b.address(family), WEB)}/${family}`;
    const { stdout } = await a.exec(['curl', '-gsS', '--max-time', '20', url, url]);
    expect(stdout.trim().split('\n')).toHaveLength(2);
    const lines = await waitFor('both requests are written down', async () => {
      const found = (await caller.requestLog()).filter(({ target }) => target === `/${family}`);
      return found.length === 2 && found;
    });
    for (const line of lines)
      expect(line).toMatchObject({ service: 'web', method: 'GET', status: 200, path: 'tunnel', attempts: 1 });
    // The way that was opened meanwhile carries both.
    expect(lines.map(({ reused }) => reused)).toEqual([false, true]);
    await caller.logged('the connection', ({ service }) => service === 'web');
    await counted('connections of HTTP', before + 1, () => detected('http'));
  });

  test('a server that speaks first is not waited for, and what may be HTTP or not is held for a moment', async () => {
    const before = await Promise.all([detected('server-first'), detected('http')]);
    const { stdout } = await a.exec([PYTHON, '-c', GREETED, b.address(family)]);
    const [milliseconds, echoed] = stdout.trim().split('\n');
    expect(Number(milliseconds)).toBeLessThan(500);
    expect(echoed).toBe('GET');
    await counted('servers that spoke first', before[0] + 1, () => detected('server-first'));
    expect(await detected('http')).toBe(before[1]);
  });

  test('TLS passes untouched', async () => {
    const before = await detected('tls');
    expect(await shown(at(b.address(family), TLS))).toBe('plain');
    const line = await caller.logged('it', ({ service }) => service === 'secure');
    expect(line).toMatchObject({ path: 'tunnel', attempts: 1, detected: 'tls' });
    await counted('connections of TLS', before + 1, () => detected('tls'));
  });

  test('on an address that services share, the name in the hello says which', async () => {
    const to = at(b.address(family), SHARED);
    expect(await shown(to, 'one.example')).toBe('one');
    expect(await shown(to, 'TWO.mesh')).toBe('two');
    expect(await shown(to, 'three.example'), 'not one of theirs').toBe('own');
    expect(await shown(to)).toBe('own');
    for (const name of ['one', 'two'])
      expect(await caller.logged(name, ({ service }) => service === name)).toMatchObject({ path: 'tunnel' });
    expect(
      await caller.logged(
        'what went on',
        ({ path, destination }) => path === 'passthrough' && destination === to,
      ),
    ).toMatchObject({ service: null });
  });
});

describe('a Redis', () => {
  const cli = async (...command: readonly string[]) =>
    (await a.must(['redis-cli', '-h', b.ipv4, ...command])).trim();
  const commands = (command: string, outcome: string) =>
    caller.metric(
      ...(['mesh_node_redis_commands_total', 'service="cache"'] as const),
      ...[`command="${command}"`, `outcome="${outcome}"`],
    );

  test('commands and errors are counted', async () => {
    expect(await cli('set', 'secret', 'value')).toBe('OK');
    expect(await cli('get', 'secret')).toBe('value');
    await cli('-3', 'hgetall', 'nothing');
    expect(await a.exec(['redis-cli', '-h', b.ipv4, 'incr', 'secret'])).toMatchObject({
      stdout: expect.stringContaining('ERR'),
    });
    expect(await a.exec(['redis-cli', '-h', b.ipv4, 'lpush', 'secret', '1'])).toMatchObject({
      stdout: expect.stringContaining('WRONGTYPE'),
    });
    await counted('SET', 1, () => commands('set', 'ok'));
    await counted('GET', 1, () => commands('get', 'ok'));
    await counted('HGETALL', 1, () => commands('hgetall', 'ok'));
    await counted('HELLO', 1, () => commands('hello', 'ok'));
    await counted('INCR', 1, () => commands('incr', 'error'));
    const wrong = ['service="cache"', 'error="WRONGTYPE"'];
    await counted('wrong types', 1, () => caller.metric('mesh_node_redis_errors_total', ...wrong));
  });

  test('a slow command is counted, and logged without what it was about', async () => {
    const script = `local till = redis.call('time')[2] + 150000; local secret = KEYS[1]
      repeat local now = redis.call('time')[2] until now + 0 >= till or now + 500000 < till; return 1`;
    await cli('eval', script, '1', 'secret');
    await counted('slow commands', 1, () =>
      caller.metric('mesh_node_redis_slow_commands_total', 'command="eval"'),
    );
    const log = await waitFor('it is logged', async () => {
      const text = await readFile(join(caller.directory, 'log/daemon.log'), 'utf8');
      return text.split('\n').find((line) => line.includes('eval was slow'));
    });
    expect(JSON.parse(log)).toMatchObject({ service: 'cache', command: 'eval' });
    expect(log).not.toContain('secret');
  });

  test('pipelines of many callers are counted to the last command', async () => {
    const each = 20_000;
    const [sets, gets] = [await commands('set', 'ok'), await commands('get', 'ok')];
    await a.must([
      ...['redis-benchmark', '-h', b.ipv4, '-n', `${each}`, '-P', '16', '-c', '20', '-q', '-t', 'set,get'],
    ]);
    // Answers of all shapes, by RESP3.
    await a.must([
      ...['redis-benchmark', '-h', b.ipv4, '-3', '-n', '1000', '-P', '8', '-c', '5', '-q'],
      ...['-t', 'lpush,lrange,mset,hset,zadd,spop'],
    ]);
    await counted('SETs', sets + each, () => commands('set', 'ok'));
    await counted('GETs', gets + each, () => commands('get', 'ok'));
    await counted('LRANGEs', 4000, () => commands('lrange', 'ok'));
    expect(await caller.metric('mesh_node_redis_connections_lost_total')).toBe(0);
  });
});
