import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type AccessLine,
  Authority,
  type CatalogueDocument,
  MeshHost,
  Program,
  TUNNEL_PORT,
} from '../support/mesh.ts';
import type { Outcome } from '../support/process.ts';
import { waitFor } from '../support/process.ts';
import { at } from '../support/site.ts';
import { type Host, NOBODY, Topology, type User } from '../support/topology.ts';
import { Held, trafficServer } from '../support/traffic.ts';
import { webServer } from '../support/web.ts';

/*
 * Who may call: `a` calls as `shop`, `b` serves, and `a` has a service of its own. Root and nobody of `a` are two programs
 * to the rules. Each test puts rules of its own in force, on both hosts.
 */

const ZONE = 'dc1';
const FAMILIES = ['ipv4', 'ipv6'] as const;
/** Addresses of services, at which nothing stands. */
const WHOLE = { ipv4: '10.76.100.1', ipv6: 'fd76:100::1' };
const WEB = 8080;
const ECHO = 8070;
const OWN = 8060;
const INSTANCE = 9000;
/** Permissive, so that a caller who is refused would find a way past the agents, if his agent took one. */
const MODE = 'permissive';

let topology: Topology;
let a: Host;
let b: Host;
let caller: MeshHost;
let callee: MeshHost;

beforeAll(async () => {
  topology = await Topology.create('mnac', {
    networks: { lan: { ipv4: '10.76.1', ipv6: 'fd76:1', router: true } },
    hosts: { a: { lan: 1 }, b: { lan: 2 } },
  });
  [a, b] = [topology.host('a'), topology.host('b')];
  await Promise.all([
    webServer(b, INSTANCE, 'web'),
    trafficServer(b, INSTANCE + 1),
    webServer(a, INSTANCE, 'own'),
  ]);
  const program = await Program.prepare(topology);
  const authority = await Authority.create(join(topology.directory, 'ca'));
  const start = (host: Host, calls: boolean) =>
    MeshHost.start(host, program, authority, {
      zone: ZONE,
      grants: { host: ['web', 'echo', 'own'], callAs: calls ? ['shop'] : [] },
      catalogue: catalogue(),
      config: { daemon: { workers: 1 }, ...(calls ? { node: { callAs: 'shop' } } : {}) },
    });
  [caller, callee] = await Promise.all([start(a, true), start(b, false)]);
  for (const port of [WEB, OWN])
    await waitFor('the service answers', async () => (await curl(url('ipv4', port))).code === 0);
}, 60_000);
afterAll(() => topology?.stop());

function catalogue(): CatalogueDocument {
  const service = (name: string, protocol: string, port: number, host: Host, instance: number) => ({
    ...{ name, protocol, mode: MODE, ports: [port] },
    addresses: FAMILIES.map((family) => at(WHOLE[family], port)),
    instances: [{ address: at(host.ipv4, instance), node: host.name, zone: ZONE, id: name }],
  });
  return {
    services: [
      service('web', 'http', WEB, b, INSTANCE),
      service('echo', 'tcp', ECHO, b, INSTANCE + 1),
      service('own', 'http', OWN, a, INSTANCE),
    ],
    nodes: [a, b].map(({ name, ipv4 }) => ({ name, zone: ZONE, tunnel: at(ipv4, TUNNEL_PORT) })),
  };
}

const inForce = new Map<string, string>();

/** Puts the rules of a service in force on both hosts. */
async function rules(service: string, access: object): Promise<void> {
  const document = JSON.stringify({ service, access });
  if (inForce.get(service) === document) return;
  inForce.set(service, document);
  const versions = await Promise.all([caller, callee].map(versionOf));
  await Promise.all([caller, callee].map((mesh) => mesh.writePolicies(`${service}.yaml`, document)));
  await waitFor('the rules are in force', async () => {
    const now = await Promise.all([caller, callee].map(versionOf));
    return now.every((version, index) => version > versions[index]!);
  });
}

/** Of the policies that every worker has. */
async function versionOf(mesh: MeshHost): Promise<number> {
  const { workers } = await mesh.status();
  return Math.min(...workers.map(({ policyVersion }) => policyVersion ?? 0));
}

const url = (family: 'ipv4' | 'ipv6', port: number, path = '') => `http://${at(WHOLE[family], port)}/${path}`;

function curl(target: string, options: { readonly user?: User; readonly more?: readonly string[] } = {}) {
  const { user, more = [] } = options;
  const command = ['curl', '-gsS', '--path-as-is', '--max-time', '10', ...more, target];
  return a.exec(command, user === undefined ? {} : { user });
}

/** What an echo server sends back to this user. */
function echo(family: 'ipv4' | 'ipv6', user?: User): Promise<Outcome> {
  const ask = `import socket, sys
s = socket.create_connection((sys.argv[1], ${ECHO}), 10)
s.sendall(b'echo 0\\nx')
sys.exit(0 if s.recv(1) == b'x' else 1)`;
  return a.exec(['/usr/bin/python3', '-c', ask, WHOLE[family]], user === undefined ? {} : { user });
}

const isDenied = ({ service, reason }: AccessLine) => service === 'echo' && reason === 'denied';

const decisions = (mesh: MeshHost, service: string, action: string) =>
  mesh.metric('mesh_node_access_decisions_total', `service="${service}"`, `action="${action}"`);

describe.each(FAMILIES)('%s', (family) => {
  test('a connection is refused by the user that made it, and goes no other way', async () => {
    await rules('echo', { rules: [{ name: 'no-nobody', deny: 'user:nobody' }], otherwise: 'allow' });
    expect((await echo(family)).code).toBe(0);
    expect((await echo(family, NOBODY)).stderr).toMatch(/reset/i);
    const text = 'access rule no-nobody of echo does not let user:nobody on a as shop call echo';
    const there = await callee.logged('the denial', isDenied);
    expect(there).toMatchObject({ caller: 'user:nobody', detail: text, access: `deny: ${text}` });
    const here = await caller.logged('the denial', isDenied);
    expect(here).toMatchObject({ path: 'tunnel', detail: text, attempts: 1 });
  });

  test('paths of HTTP are decided about one by one, however they are spelt', async () => {
    await rules('web', {
      rules: [
        { name: 'root', allow: 'user:root', paths: { prefix: '/admin' } },
        { name: 'admin', deny: '*', paths: { prefix: '/admin' } },
        { name: 'all', allow: 'service:shop' },
      ],
    });
    expect((await curl(url(family, WEB, 'admin'))).stdout).toBe('web\n');
    const spelt = [
      'admin',
      'admin/x?y',
      '//admin',
      'x/../admin',
      'x/%2e%2e/admin',
      '%61dmin',
      'x/..%2fadmin',
    ];
    const targets = [url(family, WEB), ...spelt.map((path) => url(family, WEB, path)), url(family, WEB)];
    const [last, ...first] = targets.reverse();
    const { stdout } = await curl(last!, {
      user: NOBODY,
      more: ['-w', '%{http_code} %{num_connects} %header{mesh-error}\n', ...first.reverse()],
    });
    const lines = stdout.split('\n').filter((line) => line !== '');
    const denial =
      'mesh-node: access rule admin of web does not let user:nobody on a as shop call GET of this path of web';
    expect(lines).toEqual([
      ...['web', '200 1 '],
      ...spelt.flatMap(() => [denial, '403 0 denied']),
      ...['web', '200 0 '],
    ]);
  });
});

test('a caller is refused by the service that it speaks for', async () => {
  await rules('echo', { rules: [{ name: 'only-bank', allow: 'service:bank' }] });
  expect((await echo('ipv4')).code).not.toBe(0);
  await rules('echo', { rules: [{ name: 'shop-too', allow: ['service:bank', 'service:shop'] }] });
  expect((await echo('ipv4')).code).toBe(0);
});

test('in shadow it is written down and counted, and goes through', async () => {
  await rules('web', {
    rules: [{ name: 'someday', deny: '*', methods: 'GET' }],
    otherwise: 'allow',
    shadow: true,
  });
  await rules('echo', { rules: [], otherwise: 'deny', shadow: true });
  expect((await curl(url('ipv4', WEB))).stdout).toBe('web\n');
  expect((await echo('ipv4')).code).toBe(0);
  for (const service of ['web', 'echo'])
    await waitFor('it is counted', async () => (await decisions(callee, service, 'shadow-deny')) > 0);
  const line = await callee.logged(
    'what would be denied',
    ({ access }) => access?.startsWith('shadow') === true,
  );
  expect(line.access).toMatch(/^shadow-deny: /);
});

test('a connection that lives ends when it may not be any more', async () => {
  await rules('echo', { rules: [{ name: 'root', allow: 'user:root' }] });
  const held = await Held.open(a, WHOLE.ipv4, ECHO);
  await rules('echo', { rules: [{ name: 'root-still', allow: 'user:r*' }] });
  await held.alive();
  await rules('echo', { rules: [{ name: 'nobody', allow: 'user:nobody' }] });
  expect(await held.ended()).toMatch(/ECONNRESET/);
  const line = await callee.logged('the end', (one) => isDenied(one) && (one.bytesSent ?? 0) > 0);
  expect(line.detail).toMatch(/^no access rule of echo lets user:root/);
});

test('a service of the same host asks its callers as well', async () => {
  await rules('own', {
    rules: [
      { name: 'no-x', deny: '*', paths: '/x' },
      { name: 'root', allow: 'user:root' },
    ],
  });
  const more = ['-w', '%{http_code} %{num_connects}\n', url('ipv4', OWN), url('ipv4', OWN, 'x')];
  const asRoot = await curl(url('ipv4', OWN), { more });
  expect(asRoot.stdout).toMatch(/^own\n200 1\nmesh-node: access rule no-x .*\n403 0\nown\n200 0\n$/);
  const asNobody = await curl(url('ipv4', OWN), { user: NOBODY, more: ['-w', '%{http_code}'] });
  expect(asNobody.stdout).toMatch(/^mesh-node: no access rule of own lets user:nobody .*\n403$/);
  await waitFor('it is counted', async () => (await decisions(caller, 'own', 'deny')) > 0);
});

test('authz check says the same as the agent does', async () => {
  const check = (...args: string[]) => caller.cli(['authz', 'check', ...args]);
  expect(await check('user:nobody', 'own', '--path', '/')).toMatchObject({ code: 1 });
  const allowed = await check('user:root', 'own', '--path', '/');
  expect(allowed.code).toBe(0);
  expect(allowed.stdout).toMatch(
    /^allowed: rule root allows it\nwritten in .*own\.yaml:1\nnote: own is permissive/,
  );
  expect(await check('user:root', 'own', '--path', '/x/../x')).toMatchObject({ code: 1 });
  expect(await check('user:root', 'own')).toMatchObject({ code: 2 });
});
