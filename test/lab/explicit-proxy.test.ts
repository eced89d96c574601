import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Authority, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { at } from '../support/site.ts';
import { type Host, NOBODY, Topology } from '../support/topology.ts';
import { webServer } from '../support/web.ts';

/*
 * Programs that are told to use a proxy, and addresses that several services share. `a` calls, `b` serves, both with
 * mesh-node; `e` stands outside of the mesh, and `x` is a container of `a`, behind a bridge.
 */

const ZONE = 'dc1';
const PROXY = 15_003;
const BRIDGE = 'mnep0';
/** Of `a` on the bridge. */
const GATEWAY = '10.78.0.1';
const WEB = 8080;
const TLS = 8443;
/** Where `e` serves what no service has, and what services share. */
const OUTSIDE = 8090;
const SHARED = 8091;

let topology: Topology;
let a: Host;
let b: Host;
let e: Host;
let x: Host;
let agent: MeshHost;

beforeAll(async () => {
  topology = await Topology.create('mnep', {
    networks: { lan: { ipv4: '10.77.1', ipv6: 'fd77:1', router: true } },
    hosts: { a: { lan: 1 }, b: { lan: 2 }, e: { lan: 3 }, x: {} },
  });
  [a, b, e, x] = ['a', 'b', 'e', 'x'].map((name) => topology.host(name)) as [Host, Host, Host, Host];
  await Promise.all([knownNames(), container()]);
  await Promise.all([
    ...[webServer(b, WEB, 'web'), webServer(b, WEB + 1, 'alpha'), webServer(b, WEB + 2, 'beta')],
    ...[webServer(e, OUTSIDE, 'outside'), webServer(e, SHARED, 'shared'), tlsServer()],
  ]);
  const program = await Program.prepare(topology);
  const authority = await Authority.create(join(topology.directory, 'ca'));
  const hosted = ['web', 'secure', 'alpha', 'beta'];
  const start = (host: Host, proxy: boolean) =>
    MeshHost.start(host, program, authority, {
      zone: ZONE,
      grants: proxy ? { callAs: ['shop'] } : { host: hosted },
      catalogue: catalogue(),
      config: {
        daemon: { workers: 1 },
        ...(proxy
          ? {
              node: { callAs: 'shop' },
              capture: { bridges: [BRIDGE] },
              proxy: { enabled: true, reach: 'bridges' as const },
            }
          : {}),
      },
    });
  [agent] = await Promise.all([start(a, true), start(b, false)]);
  await waitFor('the service answers', async () => (await curl(['http://web.mesh:80/'])).stdout === 'web\n');
}, 60_000);
afterAll(() => topology?.stop());

async function container(): Promise<void> {
  await a.must([
    ...['sh', '-ec'],
    `ip link add ${BRIDGE} type bridge; ip address add ${GATEWAY}/24 dev ${BRIDGE}; ip link set ${BRIDGE} up
     ip link add to-x type veth peer name eth0 netns ${x.namespace}; ip link set to-x master ${BRIDGE} up`,
  ]);
  await x.must([
    ...['sh', '-ec'],
    'ip link set lo up; ip address add 10.78.0.2/24 dev eth0; ip link set eth0 up',
  ]);
}

/** What `a` finds in its hosts file; its agent, too. */
async function knownNames(): Promise<void> {
  const names = [
    ...['127.0.0.1 localhost', `${e.ipv4} outside.test`, `${b.ipv4} alias.test`, '127.0.0.1 me.test'],
    ...['169.254.169.254 metadata.test', `${e.ipv4} other.test`],
  ];
  const files = {
    hosts: `${names.join('\n')}\n`,
    'nsswitch.conf': 'hosts: files\npasswd: files\ngroup: files\n',
  };
  for (const [name, text] of Object.entries(files)) {
    const file = join(a.directory, name);
    await writeFile(file, text, { mode: 0o644 });
    a.useFile(`/etc/${name}`, file);
  }
}

function catalogue() {
  const service = (name: string, port: number, more: object) => ({
    ...{ name, protocol: 'http', ...more },
    instances: [{ address: at(b.ipv4, port), node: 'b', zone: ZONE, id: name }],
  });
  const shared = { addresses: [at(e.ipv4, SHARED)] };
  return {
    services: [
      service('web', WEB, { mode: 'strict', ports: [80] }),
      service('secure', TLS, { protocol: 'tcp', mode: 'strict', ports: [443] }),
      service('alpha', WEB + 1, { ...shared, hosts: ['alpha.test'] }),
      service('beta', WEB + 2, shared),
    ],
    nodes: [{ name: 'b', zone: ZONE, tunnel: at(b.ipv4, TUNNEL_PORT) }],
  };
}

/** TLS of the application's own, which nobody between may touch. */
async function tlsServer(): Promise<void> {
  const [key, certificate] = [join(b.directory, 'tls.key'), join(b.directory, 'tls.crt')];
  await b.must([
    ...['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ...['-keyout', key, '-out', certificate, '-subj', '/CN=secure.mesh', '-days', '2'],
    ...['-addext', 'subjectAltName=DNS:secure.mesh'],
  ]);
  const running = b.spawn('openssl', [
    ...['openssl', 's_server', '-accept', `${TLS}`, '-www', '-quiet', '-cert', certificate, '-key', key],
  ]);
  await b.listening(TLS, running);
}

const ENVIRONMENT = ['http_proxy', 'https_proxy'].map((name) => `${name}=http://127.0.0.1:${PROXY}`);

/** A program of `a` in whose environment the proxy stands. */
function told(command: readonly string[]) {
  return a.exec(['env', ...ENVIRONMENT, 'no_proxy=other.test', ...command], { user: NOBODY });
}

const curl = (command: readonly string[]) => told(['curl', '-sS', '--max-time', '10', ...command]);

/** The line of a request in the access log of `a`. */
function written(authority: string, method = 'GET', target?: string) {
  return waitFor(`${method} ${target ?? authority} is written down`, async () =>
    (await agent.requestLog()).findLast(
      (line) =>
        line.authority === authority &&
        line.method === method &&
        (target === undefined || line.target === target),
    ),
  );
}

describe('a program that is told to use the proxy', () => {
  test.each([
    ['curl', ['curl', '-sS', '--max-time', '10']],
    ['wget', ['wget', '-qO-', '--timeout=10', '--tries=1']],
    [
      'python',
      [
        'python3',
        '-c',
        'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode(), end="")',
      ],
    ],
  ])('reaches a strict service by its name: %s', async (_name, command) => {
    expect((await told([...command, 'http://web.mesh/name'])).stdout).toBe('web\n');
    expect(await written('web.mesh')).toMatchObject({
      ...{
        service: 'web',
        instance: 'web',
        path: 'tunnel',
        status: 200,
        user: 'nobody',
        callerService: 'shop',
      },
    });
  });

  test('which nobody reaches without the mesh', async () => {
    const { code, stdout } = await e.exec(['curl', '-sS', '--max-time', '3', `http://${at(b.ipv4, WEB)}/`]);
    expect(stdout).toBe('');
    expect([7, 28, 56]).toContain(code);
  });

  test('reaches it by the address that another name leads to', async () => {
    expect((await curl([`http://alias.test:${WEB}/`])).stdout).toBe('web\n');
    expect(await written(`alias.test:${WEB}`)).toMatchObject({ service: 'web', path: 'tunnel' });
  });

  test('has its TLS untouched in a tunnel', async () => {
    const { stdout } = await curl(['--cacert', join(b.directory, 'tls.crt'), 'https://secure.mesh/']);
    expect(stdout).toContain('s_server');
    const line = await written('secure.mesh:443', 'CONNECT');
    expect(line).toMatchObject({ service: 'secure', path: 'tunnel', status: 200, reason: 'done' });
    expect(line.responseBytes).toBeGreaterThan(stdout.length);
  });

  test('may tunnel to a service of HTTP, whose requests are read all the same', async () => {
    expect((await curl(['-p', 'http://web:80/inside'])).stdout).toBe('web\n');
    expect(await written('web')).toMatchObject({ service: 'web', target: '/inside', path: 'tunnel' });
  });

  test('reaches what no service has, by the names of this host', async () => {
    const url = `http://outside.test:${OUTSIDE}/`;
    expect((await curl([url])).stdout).toBe('outside\n');
    const line = await written(`outside.test:${OUTSIDE}`);
    expect(line).toMatchObject({
      service: null,
      path: 'passthrough',
      instance: at(e.ipv4, OUTSIDE),
      status: 200,
    });
    expect((await curl(['-p', url])).stdout).toBe('outside\n');
    expect(await written(`outside.test:${OUTSIDE}`, 'CONNECT')).toMatchObject({ path: 'passthrough' });
    const head = JSON.parse((await curl([`${url}head`])).stdout) as { headers: Record<string, string> };
    expect(Object.keys(head.headers).sort()).toEqual(['accept', 'host', 'user-agent', 'via']);
  });

  test('goes past it where it is told so', async () => {
    expect((await curl([`http://other.test:${OUTSIDE}/`])).stdout).toBe('outside\n');
    expect((await agent.requestLog()).some(({ authority }) => authority?.startsWith('other.test'))).toBe(
      false,
    );
  });

  test.each([
    ['the proxy itself', `http://127.0.0.1:${PROXY}/`, 508, 'loop'],
    ['the proxy by another name', `http://me.test:${PROXY}/`, 508, 'loop'],
    ['what capture.protect names', 'http://metadata.test/', 403, 'denied'],
    ['a service that is not there', 'http://ghost.mesh/', 503, 'no-service'],
    ['a port that a service has not', 'http://web.mesh:81/', 503, 'refused'],
    ['a name that nobody knows', 'http://nobody.invalid/', 503, 'no-service'],
  ])('is refused with a reason: %s', async (_what, url, status, reason) => {
    const said = ['-o', '/dev/null', '-w', '%{http_code} %{http_connect} %header{mesh-error}'];
    const [plain, tunnel] = await Promise.all([curl([...said, url]), curl([...said, '-p', url])]);
    expect(plain.stdout).toBe(`${status} 000 ${reason}`);
    expect(tunnel.stdout).toMatch(new RegExp(`^000 ${status} `));
  });

  test('sends a request that is meant for no proxy only to services', async () => {
    const said = ['-H', 'Host: web', `http://127.0.0.1:${PROXY}/`];
    const direct = (...args: string[]) => a.exec(['curl', '-sS', '--noproxy', '*', ...args]);
    expect((await direct(...said)).stdout).toBe('web\n');
    expect((await direct(`http://127.0.0.1:${PROXY}/`)).stdout).toContain(
      'a proxy takes requests with a whole URL',
    );
  });
});

test('a container reaches services and what is outside through its bridge, and nothing of its host', async () => {
  const through = (url: string) =>
    x.exec([
      'curl',
      '-sS',
      '--max-time',
      '10',
      '-x',
      `http://${at(GATEWAY, PROXY)}`,
      '-w',
      ' %header{mesh-error}',
      url,
    ]);
  // No route leads there but through the proxy.
  expect((await through('http://web.mesh/container')).stdout).toBe('web\n ');
  expect((await through(`http://outside.test:${OUTSIDE}/`)).stdout).toBe('outside\n ');
  const line = await written('web.mesh', 'GET', 'http://web.mesh/container');
  expect(line).toMatchObject({ service: 'web' });
  for (const own of ['127.0.0.1', a.ipv4, GATEWAY, 'me.test'])
    expect((await through(`http://${own}:15090/metrics`)).stdout).toMatch(/ denied$/);
  expect((await through(`http://${GATEWAY}:${PROXY}/`)).stdout).toMatch(/ loop$/);
});

describe('an address that services share', () => {
  test('is told apart by Host, and is itself for every other name', async () => {
    const { stdout } = await a.exec([
      ...['curl', '-sS', '--max-time', '10'],
      ...['alpha', 'alpha.test', 'beta.mesh', 'gamma', 'ALPHA'].flatMap((host, i) => [
        ...(i === 0 ? [] : ['--next', '-sS']),
        ...['-H', `Host: ${host}`, `http://${at(e.ipv4, SHARED)}/`],
      ]),
    ]);
    expect(stdout.trim().split('\n')).toEqual(['alpha', 'alpha', 'beta', 'shared', 'alpha']);
    expect(await written('beta.mesh')).toMatchObject({ service: 'beta', path: 'tunnel' });
    expect(await written('gamma')).toMatchObject({ service: null, path: 'passthrough' });
  });
});
