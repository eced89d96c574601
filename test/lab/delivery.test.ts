import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Authority, type CatalogueDocument, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { type Running, waitFor } from '../support/process.ts';
import { nginx, ownDirectory } from '../support/servers.ts';
import { at } from '../support/site.ts';
import { type Host, NOBODY, Topology } from '../support/topology.ts';
import { type Transfer, traffic, trafficServer } from '../support/traffic.ts';

const ZONE = 'dc1';
const NGINX_PROXY = 8081;
const HAPROXY = 8082;
const SEEN = 8083;
const BULK = 8084;
/** Nothing listens there. */
const DEAD = 8085;
/** An instance without a mesh-node: reached directly. */
const PLAIN = 8086;
const WITNESS = 8087;
/** In a network behind the callee's host, as a container on its bridge. */
const BOXED = 8088;
/** Where a service as a whole is called. */
const WHOLE = '10.98.1.200';
const MEGABYTE = 1024 * 1024;

type Family = 'ipv4' | 'ipv6';
const families: readonly Family[] = ['ipv4', 'ipv6'];

/** nginx that wants the header, and answers what it says. */
async function nginxBehindProxy(host: Host): Promise<void> {
  const directory = await ownDirectory(host, 'nginx-proxy');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const listen = [NGINX_PROXY, PLAIN].map(
    (port) => `listen 0.0.0.0:${port} proxy_protocol; listen [::]:${port} proxy_protocol;`,
  );
  await writeFile(
    join(directory, 'nginx.conf'),
    `daemon off; pid ${directory}/pid; error_log ${directory}/error.log; worker_processes 1;
events {}
http {
  access_log ${directory}/access.log;
  ${temporary.map((kind) => `${kind}_temp_path ${directory}/${kind};`).join(' ')}
  server {
    ${listen.join('\n    ')}
    location / { return 200 "$proxy_protocol_addr $proxy_protocol_port $remote_addr\\n"; }
  }
}
`,
  );
  const files = ['-e', join(directory, 'error.log'), '-c', join(directory, 'nginx.conf')];
  const running = host.spawn('nginx', ['nginx', ...files], { user: NOBODY });
  await host.listening(NGINX_PROXY, running);
}

async function haproxyBehindProxy(host: Host): Promise<void> {
  const directory = await ownDirectory(host, 'haproxy');
  await writeFile(
    join(directory, 'haproxy.cfg'),
    `defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend in
  bind 0.0.0.0:${HAPROXY} accept-proxy
  bind [::]:${HAPROXY} v6only accept-proxy
  http-request return status 200 content-type text/plain lf-string "%ci %cp\\n"
`,
  );
  const running = host.spawn('haproxy', ['haproxy', '-f', join(directory, 'haproxy.cfg')], { user: NOBODY });
  await host.listening(HAPROXY, running);
}

/** Says who called and how the connection ended; answers A at once, and what begins with R with a reset. */
const WITNESS_PROGRAM = `
import socket, struct, threading
def serve(c, peer):
    got, end = b'', 'ended'
    try:
        while True:
            part = c.recv(65536)
            if not part: break
            got += part
            if got == b'A': c.sendall(b'ok')
            if got.startswith(b'R'):
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); end = 'refused'; break
        if end == 'ended': c.sendall(b'heard %s from port %d' % (got, peer[1]))
    except ConnectionResetError: end = 'reset'
    c.close()
    print(peer[0], end, got.decode(), flush=True)
listener = socket.create_server(('::', ${WITNESS}), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
while True:
    c, peer = listener.accept()
    threading.Thread(target=serve, args=(c, peer), daemon=True).start()
`;

/** Speaks to the witness and tells what came of it: half-closes, resets, or asks to be reset. */
const CALLER_PROGRAM = `
import socket, struct, sys
c = socket.create_connection((sys.argv[1], ${WITNESS}), timeout=10)
how = sys.argv[2]
c.sendall({'refused': b'R', 'reset': b'A', 'ended': b'hello'}[how])
if how == 'reset':
    c.recv(2)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); c.close(); print('done')
else:
    if how == 'ended': c.shutdown(socket.SHUT_WR)
    try: print(c.recv(100).decode(), 'own port', c.getsockname()[1])
    except ConnectionResetError: print('reset')
`;

describe('what a service sees of its caller', () => {
  let topology: Topology;
  let a: Host;
  let b: Host;
  let c: Host;
  let callee: MeshHost;
  let caller: MeshHost;
  let witness: Running;

  const catalogue = (): CatalogueDocument => {
    const on = (port: number, node = 'b', host = b) =>
      families.map((family) => ({
        address: at(host.address(family), port),
        zone: ZONE,
        ...(node === 'none' ? {} : { node }),
      }));
    const whole = (port: number) => ({ addresses: [at(WHOLE, port)], ports: [port] });
    return {
      services: [
        { name: 'nginx', protocol: 'tcp', source: 'proxy-v2', instances: on(NGINX_PROXY) },
        { name: 'haproxy', protocol: 'tcp', source: 'proxy-v2', instances: on(HAPROXY) },
        { name: 'plain', protocol: 'tcp', source: 'proxy-v2', instances: on(PLAIN, 'none') },
        {
          name: 'again',
          protocol: 'tcp',
          source: 'proxy-v2',
          ...whole(8090),
          instances: [...on(DEAD), ...on(HAPROXY)].map((one) => ({ ...one, id: `again-${one.address}` })),
        },
        { name: 'seen', protocol: 'tcp', source: 'transparent', mode: 'strict', instances: on(SEEN) },
        { name: 'bulk', protocol: 'tcp', source: 'transparent', instances: on(BULK) },
        { name: 'witness', protocol: 'tcp', source: 'transparent', instances: on(WITNESS) },
        { name: 'boxed', protocol: 'tcp', source: 'transparent', instances: on(BOXED, 'b', c) },
      ],
      nodes: [a, b].map((host) => ({ name: host.name, zone: ZONE, tunnel: at(host.ipv4, TUNNEL_PORT) })),
    };
  };

  beforeAll(async () => {
    topology = await Topology.create('mnde', {
      networks: {
        lan: { ipv4: '10.98.1', ipv6: 'fd98:1', router: true },
        pod: { ipv4: '10.98.2', ipv6: 'fd98:2', router: false },
      },
      hosts: { a: { lan: 1 }, b: { lan: 2, pod: 1 }, c: { pod: 2 } },
    });
    a = topology.host('a');
    b = topology.host('b');
    c = topology.host('c');
    await c.must(['ip', 'route', 'add', 'default', 'via', b.address('ipv4', 'pod')]);
    await c.must(['ip', 'route', 'add', '::/0', 'via', b.address('ipv6', 'pod')]);
    const program = await Program.prepare(topology);
    const authority = await Authority.create(join(topology.directory, 'ca'));
    // Answers come back whatever the host thinks of packets that could not be answered the way they came.
    await b.must(['sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=1', 'net.ipv4.conf.default.rp_filter=1']);
    await Promise.all([
      nginxBehindProxy(b),
      haproxyBehindProxy(b),
      nginx(b, SEEN, 'seen'),
      trafficServer(b, BULK),
      nginx(c, BOXED, 'boxed'),
    ]);
    witness = b.spawn('witness', ['/usr/bin/python3', '-c', WITNESS_PROGRAM]);
    await b.listening(WITNESS, witness);
    const hosted = ['nginx', 'haproxy', 'again', 'seen', 'bulk', 'witness', 'boxed'];
    const start = (host: Host, grants: object, node: object = {}) =>
      MeshHost.start(host, program, authority, {
        zone: ZONE,
        grants,
        catalogue: catalogue(),
        config: { daemon: { workers: 1 }, ...node },
      });
    [caller, callee] = await Promise.all([
      start(a, { callAs: ['shop'] }, { node: { callAs: 'shop' } }),
      start(b, { host: hosted }),
    ]);
    for (const host of [a, b]) {
      for (const family of families)
        await waitFor(`${host.name} intercepts ${family}`, () => ask(host, b.address(family), NGINX_PROXY));
    }
  });

  afterAll(async () => {
    await topology?.stop();
  });

  /** What the service answers, and the port that curl called from. */
  async function ask(from: Host, to: string, port: number): Promise<{ said: string; callerPort: string }> {
    const format = ' %{local_port}';
    const said = await from.must([
      'curl',
      '-sS',
      '--max-time',
      '10',
      '-w',
      format,
      `http://${at(to, port)}/`,
    ]);
    const [answer = '', callerPort = ''] = said.split('\n').map((line) => line.trim());
    return { said: answer, callerPort };
  }

  describe.each(families)('%s', (family) => {
    test.each([
      ['nginx', NGINX_PROXY],
      ['HAProxy', HAPROXY],
    ])('proxy-v2: %s is told the caller’s address and port', async (_name, port) => {
      const { said, callerPort } = await ask(a, b.address(family), port);
      expect(said.split(' ').slice(0, 2)).toEqual([a.address(family), callerPort]);
    });

    test('proxy-v2: by a caller of the same host, and without an agent in between', async () => {
      const local = await ask(b, b.address(family), NGINX_PROXY);
      expect(local.said.split(' ').slice(0, 2)).toEqual([b.address(family), local.callerPort]);
      const direct = await ask(a, b.address(family), PLAIN);
      expect(direct.said.split(' ')).toEqual([a.address(family), direct.callerPort, a.address(family)]);
      await caller.logged(
        'a direct connection',
        ({ path, service }) => path === 'direct' && service === 'plain',
      );
    });

    test('transparent: the caller is the peer, with its own port', async () => {
      const { said, callerPort } = await ask(a, b.address(family), SEEN);
      expect(said).toBe(`seen ${a.address(family)}`);
      expect(callerPort).not.toBe('');
      await callee.logged('a delivery', ({ service, path }) => service === 'seen' && path === 'local');
      // A caller of the same host is seen at that host's address.
      expect((await ask(b, b.address(family), SEEN)).said).toBe(`seen ${b.address(family)}`);
    });

    test('transparent: to an instance in a network behind the host', async () => {
      expect((await ask(a, c.address(family), BOXED)).said).toBe(`boxed ${a.address(family)}`);
      await callee.logged('a delivery', ({ service, reason }) => service === 'boxed' && reason === 'done');
    });

    test('transparent: a megabyte both ways, and more connections than sockets are ready', async () => {
      const to = b.address(family);
      expect(await traffic<Transfer>(a, 'up', to, BULK, MEGABYTE)).toMatchObject({ match: true });
      expect(await traffic<Transfer>(a, 'down', to, BULK, MEGABYTE)).toMatchObject({ match: true });
      const crowd = await traffic<{ echoed: number }>(a, 'crowd', to, BULK, 200, 0);
      expect(crowd.echoed).toBe(200);
    });

    test('transparent: half-closes and resets are passed on, both ways', async () => {
      const call = (how: string) =>
        a.must(['/usr/bin/python3', '-c', CALLER_PROGRAM, b.address(family), how]);
      // Another port where the caller's own is still in use: by one of the connections that have just ended, here or there.
      await waitFor('a caller is seen with its own port', async () => {
        const answer = await call('ended');
        expect(answer).toMatch(/^heard hello from port \d+ own port \d+$/m);
        return /from port (\d+) own port \1$/m.test(answer);
      });
      expect((await call('refused')).trim()).toBe('reset');
      expect((await call('reset')).trim()).toBe('done');
      const seen = family === 'ipv4' ? `::ffff:${a.ipv4}` : a.ipv6;
      for (const line of [`${seen} ended hello`, `${seen} refused R`, `${seen} reset A`])
        await waitFor(`the witness says ${line}`, () => witnessed().includes(line));
    });
  });

  const witnessed = (): string => witness.output;

  test('the header is written once, whichever instance a connection comes to', async () => {
    for (let i = 0; i < 8; i++) {
      const { said, callerPort } = await ask(a, WHOLE, 8090);
      // An IPv4 caller of an IPv6 instance is written as IPv6.
      expect(said.replace('::ffff:', '').split(' ').slice(0, 2)).toEqual([a.ipv4, callerPort]);
    }
    const lines = (await caller.accessLog()).filter(({ service }) => service === 'again');
    expect(Math.max(...lines.map(({ attempts }) => attempts ?? 0))).toBeGreaterThan(1);
  });

  test('workers have no capability, and the way back stands only where it is used', async () => {
    for (const pid of await callee.workers()) {
      expect(await b.must(['grep', 'CapEff', `/proc/${pid}/status`])).toMatch(/CapEff:\s*0+$/m);
    }
    const way = async (host: Host) =>
      `${await host.must(['ip', 'rule', 'show'])}${await host.must(['ip', '-6', 'rule', 'show'])}`;
    expect((await way(b)).match(/fwmark 0x20000000/g)).toHaveLength(2);
    expect(await way(a)).not.toContain('fwmark');
    // Nor are sockets that may take any address to be had anywhere else.
    const offered = await Promise.all(
      [callee, caller].map(({ directory }) => readdir(join(directory, 'run'))),
    );
    expect(offered.map((names) => names.includes('sockets.sock'))).toEqual([true, false]);
  });

  test('while the supervisor stands still connections wait for it', async () => {
    const [supervisor] = await callee.processes();
    process.kill(supervisor!, 'SIGSTOP');
    let answered = 0;
    const answers = Array.from({ length: 48 }, async () => {
      const { said } = await ask(a, b.ipv4, SEEN);
      answered++;
      return said;
    });
    try {
      // The stock of the worker is used up; nobody has lost a connection yet.
      await waitFor('some are answered', () => answered >= 8);
    } finally {
      process.kill(supervisor!, 'SIGCONT');
    }
    expect(new Set(await Promise.all(answers))).toEqual(new Set([`seen ${a.ipv4}`]));
  });
});
