import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Authority, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { ownDirectory } from '../support/servers.ts';
import { at } from '../support/site.ts';
import { type Host, NOBODY, Topology } from '../support/topology.ts';
import { webServer } from '../support/web.ts';

/*
 * HTTP/1.1 programs that nobody here wrote, as callers and as servers, through agents that read and write every message.
 * Each test sees that the program got what it wanted, and what the agent wrote down of its requests.
 */

/** Servers by name, with their port. Python's answers with HTTP/1.0, and its answers end with their connections. */
const SERVERS = { nginx: 8080, haproxy: 8081, python: 8082, node: 8083 } as const;
type Server = keyof typeof SERVERS;
const all = Object.keys(SERVERS) as Server[];
const BLOB_BYTES = 5_000_000;
const BLOB = `blob/${BLOB_BYTES}`;
const PYTHON = '/usr/bin/python3';

let topology: Topology;
let a: Host;
let b: Host;
let caller: MeshHost;
let web: string;
let payload: string;

beforeAll(async () => {
  topology = await Topology.create('mnhi', {
    networks: { lan: { ipv4: '10.85.1', ipv6: 'fd85:1', router: false } },
    hosts: { a: { lan: 1 }, b: { lan: 2 } },
  });
  [a, b] = [topology.host('a'), topology.host('b')];
  payload = join(a.directory, 'payload');
  await writeFile(payload, Buffer.alloc(3_000_001, 'what goes up must come down '));
  await startServers();
  const program = await Program.prepare(topology);
  const authority = await Authority.create(join(topology.directory, 'ca'));
  const catalogue = {
    services: all.map((name) => ({
      ...{ name, protocol: 'http' },
      instances: (['ipv4', 'ipv6'] as const).map((family) => ({
        ...{ address: at(b.address(family), SERVERS[name]), node: 'b', zone: 'dc1' },
      })),
    })),
    nodes: [a, b].map(({ name, ipv4 }) => ({ name, zone: 'dc1', tunnel: at(ipv4, TUNNEL_PORT) })),
  };
  [caller] = (await Promise.all(
    [a, b].map((host) =>
      MeshHost.start(host, program, authority, {
        ...{ zone: 'dc1', catalogue, grants: host === a ? { callAs: ['shop'] } : { host: all } },
        config: { daemon: { workers: 1 }, ...(host === a ? { node: { callAs: 'shop' } } : {}) },
      }),
    ),
  )) as [MeshHost];
});
afterAll(() => topology?.stop());

async function startServers(): Promise<void> {
  await webServer(b, SERVERS.node, 'node');
  web = await ownDirectory(b, 'web');
  await mkdir(join(web, 'blob'));
  await b.must(['curl', '-sS', '-o', join(web, BLOB), `http://127.0.0.1:${SERVERS.node}/${BLOB}`]);
  const temporary = ['proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${web}/${kind};`);
  const listen = (where: string) => `listen ${where};
    location / { root ${web}; }
    location = / { return 200 "$request_method $server_protocol\\n"; }
    location /upload { client_body_in_file_only on; proxy_pass http://unix:${web}/sink; }`;
  await writeFile(
    join(web, 'nginx.conf'),
    `daemon off; pid ${web}/pid; worker_processes 1;
events { worker_connections 1024; }
http {
  access_log off; default_type text/plain; client_max_body_size 0;
  client_body_temp_path ${web}/uploads; ${temporary.join(' ')}
  server { listen unix:${web}/sink; location / { return 200 "$content_length\\n"; } }
  server { ${listen(`[::]:${SERVERS.nginx} ipv6only=off`)} }
  server { ${listen(`unix:${web}/nginx`)} }
}
`,
  );
  await writeFile(
    join(web, 'haproxy.cfg'),
    `defaults
  mode http
  timeout client 20s
  timeout server 20s
  timeout connect 5s
frontend all
  bind [::]:${SERVERS.haproxy} v4v6
  default_backend nginx
backend nginx
  server nginx unix@${web}/nginx
`,
  );
  const commands: Readonly<Record<Exclude<Server, 'node'>, readonly string[]>> = {
    nginx: ['nginx', '-e', join(web, 'error.log'), '-c', join(web, 'nginx.conf')],
    haproxy: ['haproxy', '-db', '-f', join(web, 'haproxy.cfg')],
    python: [PYTHON, '-m', 'http.server', '--bind', '::', '--directory', web, `${SERVERS.python}`],
  };
  for (const [name, command] of Object.entries(commands)) {
    await b.listening(SERVERS[name as Server], b.spawn(name, command, { user: NOBODY }));
  }
}

const url = (server: Server, path = '', family: 'ipv4' | 'ipv6' = 'ipv4') =>
  `http://${at(b.address(family), SERVERS[server])}/${path}`;
const curl = (...args: readonly string[]) => ['curl', '-gsS', '--max-time', '20', ...args];
const python = (program: string, ...args: readonly string[]) => [PYTHON, '-c', program, ...args];

async function sha256(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
}

type Line = Awaited<ReturnType<MeshHost['requestLog']>>[number];

/** Runs a program on a; what it said, and the requests that it made: so many of them, all through the tunnel. */
async function carried(
  server: Server,
  requests: number,
  command: readonly string[],
  input = '',
): Promise<{ readonly said: string; readonly lines: readonly Line[] }> {
  const ofServer = async () => (await caller.requestLog()).filter(({ service }) => service === server);
  const before = (await ofServer()).length;
  const said = await a.must(command, { timeoutMs: 30_000, input });
  const lines = await waitFor(`${requests} requests to ${server} are written down`, async () => {
    const now = (await ofServer()).slice(before);
    return now.length >= requests && now;
  });
  expect(lines).toHaveLength(requests);
  for (const line of lines) {
    expect(line, JSON.stringify(line)).toMatchObject({ path: 'tunnel', reason: 'done', attempts: 1 });
  }
  return { said, lines };
}

describe.each(all)('to %s', (server) => {
  test.each(['ipv4', 'ipv6'] as const)('curl: downloads on one connection, on %s', async (family) => {
    const files = ['first', 'second'].map((name) => join(a.directory, name));
    const once = (file: string) => ['-o', file, url(server, BLOB, family)];
    const command = curl('-w', '%{num_connects} %{http_code}\n', ...files.flatMap(once));
    const { said, lines } = await carried(server, 2, command);
    expect(said).toBe('1 200\n0 200\n');
    for (const file of files) expect(await sha256(file)).toBe(await sha256(join(web, BLOB)));
    expect(lines.map(({ responseBytes }) => responseBytes)).toEqual([BLOB_BYTES, BLOB_BYTES]);
  });

  test('curl: HEAD, and another request right behind it', async () => {
    const command = curl('-w', '%{num_connects}\n', '-I', url(server, BLOB), url(server, BLOB));
    const { said, lines } = await carried(server, 2, command);
    expect(said.match(/^HTTP\/1\.1 200/gm)).toHaveLength(2);
    expect(said.endsWith('\r\n0\n')).toBe(true);
    expect(lines.map(({ method, responseBytes }) => [method, responseBytes])).toEqual([
      ['HEAD', 0],
      ['HEAD', 0],
    ]);
  });

  test('requests in one piece are answered in their order', async () => {
    const targets = [`HEAD /${BLOB}`, 'GET /a', `GET /${BLOB}`, 'GET /b'];
    const text = targets.map((target) => `${target} HTTP/1.1\r\nHost: b\r\n\r\n`).join('');
    const last = 'GET /c HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n';
    const address = [b.ipv4, `${SERVERS[server]}`];
    const { lines } = await carried(server, 5, ['nc', '-w', '10', ...address], text + last);
    const asked = lines.map(({ method, target }) => `${method} ${target}`);
    expect(asked).toEqual([...targets, 'GET /c']);
    const sizes = lines.map(({ responseBytes }) => responseBytes);
    expect([sizes[0], sizes[2]]).toEqual([0, BLOB_BYTES]);
  });

  test.each([
    ['of HTTP/1.0, a connection for each request', []],
    ['of HTTP/1.0, keep-alive', ['-k']],
  ])('ab: %s', async (_how, flags) => {
    const load = ['ab', '-q', '-l', '-n', '200', '-c', '10', ...flags, url(server)];
    const { said, lines } = await carried(server, 200, load);
    expect(said).toMatch(/^Complete requests: +200$/m);
    expect(said).toMatch(/^Failed requests: +0$/m);
    const connections = new Set(lines.map(({ id }) => id?.split('.')[0])).size;
    // Answers of HTTP/1.0 need a length to stay: what comes in chunks ends with its connection.
    expect(connections).toBe(flags.length > 0 && server !== 'node' ? 10 : connections);
  });

  test('h2load: HTTP/1.1, keep-alive', async () => {
    const load = ['h2load', '--h1', '-n', '400', '-c', '8', url(server)];
    const { said, lines } = await carried(server, 400, load);
    expect(said).toContain('400 done, 400 succeeded, 0 failed, 0 errored, 0 timeout');
    expect(new Set(lines.map(({ id }) => id?.split('.')[0])).size).toBe(8);
  });

  test('wget', async () => {
    const file = join(a.directory, `wget-${server}`);
    await carried(server, 1, ['wget', '-q', '-O', file, url(server, BLOB)]);
    expect(await sha256(file)).toBe(await sha256(join(web, BLOB)));
  });

  test('Python: urllib, and http.client on one connection', async () => {
    const program = `
import hashlib, http.client, sys, urllib.request
host, port, path = sys.argv[1:4]
print(hashlib.sha256(urllib.request.urlopen(f'http://{host}:{port}{path}').read()).hexdigest())
c = http.client.HTTPConnection(host, int(port), timeout=20)
for method in 'GET', 'HEAD', 'GET':
    c.request(method, path)
    own = c.sock.getsockname() if method == 'GET' and 'own' not in globals() else own
    print(hashlib.sha256(c.getresponse().read()).hexdigest(), c.sock is not None and c.sock.getsockname() == own)
`;
    const { said } = await carried(server, 4, python(program, b.ipv4, `${SERVERS[server]}`, `/${BLOB}`));
    const whole = await sha256(join(web, BLOB));
    const none = createHash('sha256').digest('hex');
    expect(said.trim().split('\n')).toEqual([whole, `${whole} True`, `${none} True`, `${whole} True`]);
  });

  test('node: fetch', async () => {
    const program = `const all = await Promise.all(process.argv.slice(1).map(async (url) => (await (await fetch(url)).arrayBuffer()).byteLength));
console.log(all.join(' '));`;
    const urls = Array.from({ length: 6 }, () => url(server, BLOB));
    const { said } = await carried(server, 6, [
      ...[process.execPath, '--input-type=module', '-e', program],
      ...urls,
    ]);
    expect(said.trim()).toBe(urls.map(() => BLOB_BYTES).join(' '));
  });
});

describe.each(['nginx', 'haproxy'] as const)('to %s', (server) => {
  test.each([
    ['with a length', ['-T', 'PAYLOAD']],
    ['in chunks', ['-T', 'PAYLOAD', '-H', 'Transfer-Encoding: chunked']],
    [
      'after 100 Continue',
      ['-T', 'PAYLOAD', '-H', 'Expect: 100-continue', '--expect100-timeout', '15', '-v'],
    ],
    ['as a form', ['-F', 'file=@PAYLOAD']],
  ])('curl: an upload %s', async (how, flags) => {
    const before = new Set(await readdir(join(web, 'uploads')));
    const command = curl(...flags.map((flag) => flag.replace('PAYLOAD', payload)), url(server, 'upload'));
    const { said, lines } = await carried(server, 1, ['sh', '-c', '"$@" 2>&1', 'sh', ...command]);
    if (how === 'after 100 Continue') expect(said).toContain('HTTP/1.1 100 Continue');
    const [stored] = (await readdir(join(web, 'uploads'))).filter((file) => !before.has(file));
    const content = await readFile(join(web, 'uploads', stored!));
    expect(content.includes(await readFile(payload))).toBe(true);
    expect(lines[0]).toMatchObject({ status: 200, requestBytes: content.length });
  });

  test('curl: ranges, and what has not changed', async () => {
    const part = await carried(server, 1, curl('-r', '1000-1999', url(server, BLOB)));
    expect(part.said).toBe((await readFile(join(web, BLOB))).subarray(1000, 2000).toString());
    expect(part.lines[0]).toMatchObject({ status: 206, responseBytes: 1000 });
    const tag = /^etag: (.*)\r$/im.exec((await carried(server, 1, curl('-I', url(server, BLOB)))).said)?.[1];
    const same = ['-w', '%{http_code} %{num_connects} ', '-H', `If-None-Match: ${tag}`];
    const twice = await carried(server, 2, curl(...same, url(server, BLOB), url(server, BLOB)));
    expect(twice.said).toBe('304 1 304 0 ');
  });
});

test('node: chunks with trailers arrive with them', async () => {
  const { said } = await carried('node', 1, curl('-i', '--raw', url('node', 'blob/3')));
  const sum = createHash('sha256').update('a b').digest('hex');
  expect(said).toMatch(/^transfer-encoding: chunked\r$/im);
  expect(said.endsWith(`\r\n3\r\na b\r\n0\r\nx-sha256: ${sum}\r\n\r\n`)).toBe(true);
});
