import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Authority, type CatalogueDocument, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { type Running, waitFor } from '../support/process.ts';
import { at } from '../support/site.ts';
import { type Host, NOBODY, Topology } from '../support/topology.ts';

const ZONE = 'dc1';
const OPEN = 8101;
const CLOSED = 8102;
const NEAR = 8103;
const TWO = 8104;
/** Second instance of `two`; never there. */
const GONE = 8105;
/** Addresses that mean a service as a whole; nobody has them. */
const DECLARED = { ipv4: '10.99.1.200', ipv6: 'fd99:1::200' } as const;
/** Port of the DNS responder, as it is by default. */
const NAMES = 15_053;
/** `balance.probeInterval` of the test. */
const PROBE_MS = 1000;
/** What anything else may take on a busy machine. */
const SLACK_MS = 2000;

/** Says hello to whoever connects. */
const SERVER = `
import socket, sys
listener = socket.create_server(('::', int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
print('ready', flush=True)
while True:
    c, _ = listener.accept()
    try: c.sendall(b'hello')
    except OSError: pass
    c.close()
`;

/** One connection to each address; one line each: `ok`, `refused`, or `lie` when it was accepted and then nobody was there. */
const CALLER = `
import socket, sys
for to in sys.argv[1:]:
    host, port = to.rsplit(':', 1)
    try: c = socket.create_connection((host.strip('[]'), int(port)), timeout=10)
    except ConnectionRefusedError: print('refused'); continue
    except ConnectionResetError: print('lie'); continue
    except OSError as e: print(e); continue
    try: print('ok' if c.recv(10) == b'hello' else 'lie')
    except ConnectionResetError: print('lie')
    except OSError as e: print(e)
    c.close()
`;

describe('connect() tells the truth', () => {
  let topology: Topology;
  let a: Host;
  let b: Host;
  let caller: MeshHost;
  let callee: MeshHost;
  const servers = new Map<number, Running>();

  const catalogue = (): CatalogueDocument => {
    const on = (host: Host, port: number) =>
      (['ipv4', 'ipv6'] as const).map((family) => ({
        address: at(host.address(family), port),
        node: host.name,
        zone: ZONE,
      }));
    const whole = (port: number) => ({
      protocol: 'tcp',
      addresses: [at(DECLARED.ipv4, port), at(DECLARED.ipv6, port)],
      ports: [port],
    });
    return {
      services: [
        { name: 'open', ...whole(OPEN), instances: on(b, OPEN) },
        { name: 'closed', ...whole(CLOSED), mode: 'strict', instances: on(b, CLOSED) },
        { name: 'near', ...whole(NEAR), instances: on(a, NEAR) },
        { name: 'two', ...whole(TWO), instances: [on(b, TWO)[0]!, on(b, GONE)[0]!] },
      ],
      nodes: [a, b].map((host) => ({ name: host.name, zone: ZONE, tunnel: at(host.ipv4, TUNNEL_PORT) })),
    };
  };

  beforeAll(async () => {
    topology = await Topology.create('mndh', {
      networks: { lan: { ipv4: '10.99.1', ipv6: 'fd99:1', router: true } },
      hosts: { a: { lan: 1 }, b: { lan: 2 } },
    });
    a = topology.host('a');
    b = topology.host('b');
    const program = await Program.prepare(topology);
    const authority = await Authority.create(join(topology.directory, 'ca'));
    await Promise.all([OPEN, CLOSED, TWO, NEAR].map((port) => serve(port)));
    const plan = { zone: ZONE, catalogue: catalogue() };
    const balance = { probeInterval: `${PROBE_MS}ms`, connectTimeout: '1s' };
    [caller, callee] = await Promise.all([
      MeshHost.start(a, program, authority, {
        ...plan,
        grants: { callAs: ['shop'], host: ['near'] },
        config: { node: { callAs: 'shop' }, daemon: { workers: 2 }, balance },
      }),
      MeshHost.start(b, program, authority, { ...plan, grants: { host: ['open', 'closed', 'two'] } }),
    ]);
    // Strict: whoever is served is intercepted.
    for (const to of [at(b.ipv4, CLOSED), at(b.ipv6, CLOSED)])
      await waitFor(`${to} answers`, async () => (await call(to))[0] === 'ok');
  });

  afterAll(async () => {
    await topology?.stop();
  });

  async function serve(port: number): Promise<void> {
    const host = port === NEAR ? a : b;
    const running = host.spawn(`server ${port}`, ['/usr/bin/python3', '-c', SERVER, `${port}`], {
      user: NOBODY,
    });
    servers.set(port, running);
    await host.listening(port, running);
  }

  /** What came of one connection to each of these. */
  async function call(...to: readonly string[]): Promise<string[]> {
    return (await a.must(['/usr/bin/python3', '-c', CALLER, ...to], { timeoutMs: 60_000 }))
      .trim()
      .split('\n');
  }

  /** Every address of a service: declared, virtual, of its instances. */
  async function addressesOf(name: string, port: number): Promise<string[]> {
    const asked = await Promise.all(
      ['A', 'AAAA'].map((type) =>
        a.must(['dig', '+short', '-p', `${NAMES}`, '@127.0.0.1', `${name}.mesh`, type]),
      ),
    );
    const virtual = asked.flatMap((answer) => answer.split('\n').filter(Boolean));
    expect(virtual.length, `virtual addresses of ${name}`).toBe(2);
    const host = port === NEAR ? a : b;
    return [...Object.values(DECLARED), ...virtual, host.ipv4, host.ipv6].map((ip) => at(ip, port));
  }

  /** Calls until connect() is refused; how many connections were accepted in vain until then. */
  async function liesUntilRefused(to: string): Promise<number> {
    let lies = 0;
    await waitFor(`${to} is refused`, async () => {
      const [came] = await call(to);
      if (came === 'lie') lies++;
      else expect(came).toBe('refused');
      return came === 'refused';
    });
    return lies;
  }

  /** Milliseconds until every address answers again. */
  async function backWithin(addresses: readonly string[]): Promise<number> {
    const began = performance.now();
    await waitFor('it answers again', async () => (await call(addresses[0]!))[0] === 'ok');
    const took = performance.now() - began;
    await waitFor('all of it answers', async () => new Set(await call(...addresses)).size === 1, {
      timeoutMs: SLACK_MS,
    });
    return took;
  }

  const nc = (to: string) => {
    const [host, port] = [to.slice(0, to.lastIndexOf(':')), to.slice(to.lastIndexOf(':') + 1)];
    return a.exec(['nc', '-z', '-v', '-w', '5', host.replace(/[[\]]/g, ''), port]);
  };
  const curl = (to: string) => a.exec(['curl', '-sS', '--max-time', '5', `http://${to}/`]);

  const probes = () => caller.metric('mesh_node_probes_total');

  test('nothing is probed that is not dead', async () => {
    for (const [name, port] of [
      ['open', OPEN],
      ['closed', CLOSED],
      ['near', NEAR],
    ] as const) {
      const addresses = await addressesOf(name, port);
      expect(await call(...addresses)).toEqual(addresses.map(() => 'ok'));
      expect((await nc(addresses[0]!)).code).toBe(0);
    }
    expect(await probes()).toBe(0);
  });

  test.each([
    ['permissive', 'open', OPEN],
    ['strict', 'closed', CLOSED],
    ['on the same host', 'near', NEAR],
  ])(
    'a service without a living instance refuses at connect, until one is back (%s)',
    async (_how, name, port) => {
      const addresses = await addressesOf(name, port);
      await servers.get(port)!.stop();
      const lies = await liesUntilRefused(addresses[0]!);
      // The one that found out, and perhaps one while the rule is put in.
      expect(lies).toBeGreaterThan(0);
      expect(lies).toBeLessThanOrEqual(2);
      expect(await call(...addresses, ...addresses)).toEqual(
        [...addresses, ...addresses].map(() => 'refused'),
      );
      for (const to of addresses) {
        expect((await nc(to)).stderr).toContain('Connection refused');
        expect(await curl(to)).toMatchObject({ code: 7 });
      }
      const [line] = (await caller.accessLog()).filter(({ service }) => service === name).slice(-1);
      expect(line).toMatchObject({ reason: 'refused', path: name === 'near' ? 'local' : 'tunnel' });
      expect(await caller.metric('mesh_node_outages', 'service')).toBe(1);
      expect((await caller.status()).outages).toEqual([{ service: name }]);
      expect((await caller.cli(['status'])).stdout).toMatch(new RegExp(`nobody answers +${name}`));
      await serve(port);
      const took = await backWithin(addresses);
      expect(took).toBeLessThan(PROBE_MS + SLACK_MS);
      expect(await caller.metric('mesh_node_outages', 'service')).toBe(0);
    },
  );

  test('an instance that is dead refuses at its own address; its service answers', async () => {
    const dead = at(b.ipv4, GONE);
    await liesUntilRefused(dead);
    expect(await call(dead, at(DECLARED.ipv4, TWO), at(DECLARED.ipv6, TWO), at(b.ipv4, TWO))).toEqual([
      'refused',
      'ok',
      'ok',
      'ok',
    ]);
    await serve(GONE);
    expect(await backWithin([dead])).toBeLessThan(PROBE_MS + SLACK_MS);
  });

  test('while the agent of its host is away a permissive service is reached, a strict one refuses', async () => {
    const open = await addressesOf('open', OPEN);
    const closed = await addressesOf('closed', CLOSED);
    const before = await readFile(join(caller.directory, 'log/daemon.log'), 'utf8');
    const pids = await callee.processes();
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await callee.running.ended;
    for (let i = 0; i < 5; i++) expect(await call(...open)).toEqual(open.map(() => 'ok'));
    await liesUntilRefused(closed[0]!);
    expect(await call(...closed)).toEqual(closed.map(() => 'refused'));
    await callee.start();
    expect(await backWithin(closed)).toBeLessThan(PROBE_MS + SLACK_MS);
    expect(await call(...open)).toEqual(open.map(() => 'ok'));
    const log = (await readFile(join(caller.directory, 'log/daemon.log'), 'utf8')).slice(before.length);
    const down = log.split('\n').filter((line) => line.includes('service: up → down'));
    expect(down.every((line) => line.includes('"closed"'))).toBe(true);
    expect(down.length).toBeGreaterThan(0);
  });

  test('a worker that is replaced takes its word back', async () => {
    const dead = at(DECLARED.ipv4, OPEN);
    await servers.get(OPEN)!.stop();
    await liesUntilRefused(dead);
    const workers = await caller.workers();
    for (const pid of workers) process.kill(pid, 'SIGKILL');
    await waitFor('it is known by experience only', async () => (await call(dead))[0] === 'lie');
    await liesUntilRefused(dead);
    await serve(OPEN);
    expect(await backWithin([dead])).toBeLessThan(PROBE_MS + SLACK_MS);
  });
});
