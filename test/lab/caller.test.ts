import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AccessLine, Authority, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { at } from '../support/site.ts';
import { SystemdAgent } from '../support/systemd-agent.ts';
import { SystemdHost } from '../support/systemd-host.ts';
import { NOBODY, Topology } from '../support/topology.ts';

/*
 * Who is calling: on a, a host with a real systemd, units, users and a shell call a service on b through the mesh. The
 * agent of a says what the kernel knows of them, the agent of b what a's told it.
 */

const FAMILIES = ['ipv4', 'ipv6'] as const;
const PORT = 7000;
const OTHER_PORT = 7001;
const CONNECTIONS = 1_200;
const PERCENT = 50;
const SHARE = (CONNECTIONS * PERCENT) / 100;

/** Greets everybody, and waits for the other side's end. */
const SERVER = `
import asyncio
async def greet(reader, writer):
    try:
        writer.write(b'hi\\n')
        await reader.read()
    except OSError:
        pass
    writer.close()
async def main():
    for port in (${PORT}, ${OTHER_PORT}):
        await asyncio.start_server(greet, ['0.0.0.0', '::'], port, backlog=4096)
    await asyncio.Event().wait()
asyncio.run(main())
`;
/** Calls each address, waits for the greeting, and says from where it called. */
const CALL = `
import socket, sys
for address in sys.argv[1:]:
    s = socket.create_connection((address, ${PORT}), 10)
    if s.recv(3) != b'hi\\n': sys.exit(1)
    ip, port = s.getsockname()[:2]
    print(f'[{ip}]:{port}' if ':' in ip else f'{ip}:{port}', flush=True)
    s.close()
`;
/** Writes and closes while the workers stand still, so that nobody can look before it has closed. */
const LEAVE = `
import os, signal, socket, sys
pids = [int(pid) for pid in sys.argv[2:]]
for pid in pids: os.kill(pid, signal.SIGSTOP)
try:
    s = socket.create_connection((sys.argv[1], ${PORT}), 10)
    ip, port = s.getsockname()[:2]
    s.send(b'bye'); s.close()
finally:
    for pid in pids: os.kill(pid, signal.SIGCONT)
print(f'[{ip}]:{port}' if ':' in ip else f'{ip}:{port}', flush=True)
`;
/** Two connections from one port to different destinations: redirected, the second one has another port. */
const TWICE = `
import socket, sys
held = []
for port in (${PORT}, ${OTHER_PORT}):
    s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('', 45000))
    s.connect((sys.argv[1], port))
    if s.recv(3) != b'hi\\n': sys.exit(1)
    held.append(s)
`;
/** Opens many and holds those that are greeted. */
const GREEDY = `
import socket, sys, time
held, reset = [], 0
for _ in range(int(sys.argv[2])):
    # Who is over its share may hear of it before connect() has returned.
    try: held.append(socket.create_connection((sys.argv[1], ${PORT}), 10))
    except ConnectionResetError: reset += 1
for s in list(held):
    try:
        if s.recv(3) != b'hi\\n': raise ConnectionResetError
    except ConnectionResetError:
        held.remove(s); reset += 1
print(f'{len(held)} {reset}', flush=True)
while True: time.sleep(60)
`;

let topology: Topology;
let booted: Promise<SystemdHost> | undefined;
let a: SystemdHost;
let agent: SystemdAgent;
let b: MeshHost;

beforeAll(async () => {
  topology = await Topology.create('mnca', {
    networks: { lan: { ipv4: '10.94.1', ipv6: 'fd94:1', router: false } },
    hosts: { a: { lan: 1 }, b: { lan: 2 } },
  });
  const program = await Program.prepare(topology);
  const authority = await Authority.create(`${topology.directory}/ca`);
  const [onA, onB] = [topology.host('a'), topology.host('b')];
  const catalogue = {
    services: [
      {
        name: 'greeter',
        protocol: 'tcp',
        instances: [PORT, OTHER_PORT].flatMap((port) =>
          FAMILIES.map((family) => ({ address: at(onB.address(family), port), node: 'b' })),
        ),
      },
    ],
    nodes: [onA, onB].map(({ name, ipv4 }) => ({ name, zone: 'default', tunnel: at(ipv4, TUNNEL_PORT) })),
  };
  const server = onB.spawn('greeter', ['/usr/bin/python3', '-c', SERVER], { user: NOBODY });
  booted = SystemdHost.boot(topology, 'a');
  b = await MeshHost.start(onB, program, authority, {
    zone: 'default',
    grants: { host: ['greeter'] },
    catalogue,
  });
  await onB.listening(PORT, server);
  a = await booted;
  for (const [name, text] of Object.entries({ call: CALL, leave: LEAVE, twice: TWICE, greedy: GREEDY }))
    await a.write(`/srv/${name}.py`, text);
  agent = await SystemdAgent.start(a, authority, {
    grants: { callAs: ['shop'] },
    catalogue,
    config: {
      limits: { connections: CONNECTIONS, callerPercent: PERCENT },
      caller: { timeout: '10s' }, // as long as it takes on a machine that is busy with other tests
    },
  });
});
afterAll(async () => {
  // Also when something else failed while it booted.
  await (await booted?.catch(() => undefined))?.powerOff();
  await topology.stop();
});

const addresses = (): string[] => FAMILIES.map((family) => b.host.address(family));
const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

/** Installs a unit whose output is in a file of its name. */
async function unit(name: string, service: string): Promise<void> {
  const text = `[Service]\nStandardOutput=append:/run/${name}.out\n${service}`;
  await a.write(`/etc/systemd/system/${name}`, text);
  await a.must(['systemctl', 'daemon-reload']);
}

/** The line on both sides: the caller's agent's, and what the other was told. */
async function both(callerAddress: string): Promise<readonly [AccessLine, AccessLine]> {
  const line = await agent.logged(callerAddress);
  const far = await b.logged(
    `what ${callerAddress} did`,
    (one) => one.direction === 'inbound' && one.detail === null && one.caller === line.caller,
  );
  return [line, far];
}

describe('a unit of the system', () => {
  test('is named, every time it is started anew, on both sides', async () => {
    const calls = `ExecStart=/usr/bin/python3 /srv/call.py ${addresses().join(' ')}\n`;
    await unit('orders.service', `Type=oneshot\nUser=nobody\n${calls}`);
    for (let start = 1; start <= 3; start++) {
      await a.must(['systemctl', 'start', 'orders.service']);
      const called = lines(await a.must(['cat', '/run/orders.service.out']));
      expect(called).toHaveLength(2 * start);
      for (const address of called.slice(-2)) {
        expect(await agent.logged(address)).toMatchObject({
          caller: 'unit:orders.service',
          user: 'nobody',
          path: 'tunnel',
          reason: 'done',
        });
      }
    }
  });

  test('is named while it is connected, here and there', async () => {
    await unit('holder.service', `ExecStart=/usr/bin/python3 /srv/greedy.py ${b.host.ipv4} 2\n`);
    await a.must(['systemctl', 'start', 'holder.service']);
    await waitFor('it holds two', async () => (await a.must(['cat', '/run/holder.service.out'])) === '2 0\n');
    const shown = await waitFor('both are named', async () => {
      const { connections } = (await a.api('/v1/connections')) as { connections: { caller: string }[] };
      return connections.length === 2 && connections.every(({ caller }) => caller === 'unit:holder.service');
    });
    expect(shown).toBe(true);
    await a.must(['systemctl', 'stop', 'holder.service']);
  });

  test('is told to the other side, which shows it', async () => {
    const again = `ExecStart=/usr/bin/python3 /srv/call.py ${b.host.ipv4}\n`;
    // The name is found a moment after the first OPEN has left; what is opened after that carries it.
    const wait = 'ExecStart=/bin/sleep 0.3\n';
    await unit('told.service', `Type=oneshot\n${again}${wait}${again}`);
    await a.must(['systemctl', 'start', 'told.service']);
    const [, second] = lines(await a.must(['cat', '/run/told.service.out']));
    const [near, far] = await both(second!);
    expect([near.caller, far.caller, far.callerNode]).toEqual([
      'unit:told.service',
      'unit:told.service',
      'a',
    ]);
  });

  test.each(FAMILIES)('is named where the kernel gave its connection another port (%s)', async (family) => {
    const address = b.host.address(family);
    await unit('twice.service', `Type=oneshot\nExecStart=/usr/bin/python3 /srv/twice.py ${address}\n`);
    await a.must(['systemctl', 'start', 'twice.service']);
    const [first, second] = await Promise.all(
      [PORT, OTHER_PORT].map((port) =>
        waitFor(`the connection to ${port} is logged`, async () =>
          (await agent.accessLog()).findLast(
            (one) => one.destination === at(address, port) && one.caller === 'unit:twice.service',
          ),
        ),
      ),
    );
    expect([first?.caller, second?.caller]).toEqual(['unit:twice.service', 'unit:twice.service']);
    expect(first?.callerAddress).toBe(at(a.host.address(family), 45_000));
    expect(second?.callerAddress).not.toBe(first?.callerAddress);
  });

  test('is counted', async () => {
    await waitFor('the metrics page counts it', async () =>
      /^mesh_node_caller_connections_total\{caller="unit:orders.service"\} 6$/m.test(await agent.metrics()),
    );
  });
});

describe('somebody else', () => {
  test("a user's own unit of that name is its user", async () => {
    await a.must(['useradd', '--create-home', 'shopper']);
    const uid = (await a.must(['id', '-u', 'shopper'])).trim();
    const home = '/home/shopper/.config/systemd/user';
    await a.must(['mkdir', '-p', home]);
    const calls = `ExecStart=/usr/bin/python3 /srv/call.py ${addresses().join(' ')}\n`;
    const out = 'StandardOutput=truncate:/home/shopper/out\n';
    await a.write(`${home}/orders.service`, `[Service]\nType=oneshot\n${out}${calls}`);
    await a.must(['chown', '-R', 'shopper:shopper', '/home/shopper']);
    await a.must(['systemctl', 'start', `user@${uid}.service`]);
    // Who is new is a number until the agent has looked again.
    const shell = ['setpriv', '--reuid', 'shopper', '--clear-groups', '/usr/bin/python3', '/srv/call.py'];
    await waitFor('the new user has a name', async () => {
      const [address] = lines(await a.must([...shell, b.host.ipv4]));
      return (await agent.logged(address!)).caller === 'user:shopper';
    });
    await a.must([
      ...['setpriv', '--reuid', 'shopper', '--regid', 'shopper', '--init-groups'],
      ...['env', `XDG_RUNTIME_DIR=/run/user/${uid}`, 'systemctl', '--user', 'start', 'orders.service'],
    ]);
    const called = lines(await a.must(['cat', '/home/shopper/out']));
    expect(called).toHaveLength(2);
    for (const address of called)
      expect(await agent.logged(address)).toMatchObject({ caller: 'user:shopper', user: 'shopper' });
  });

  test('a shell is its user', async () => {
    const drop = ['setpriv', '--reuid', 'games', '--clear-groups'];
    const called = lines(await a.must([...drop, '/usr/bin/python3', '/srv/call.py', ...addresses()]));
    for (const address of called)
      expect(await agent.logged(address)).toMatchObject({ caller: 'user:games', user: 'games' });
  });

  test.each(FAMILIES)(
    'who writes and closes before anybody looks is unknown, not root (%s)',
    async (family) => {
      const { workers } = JSON.parse(await a.must(['mesh-node', 'status', '-o', 'json'])) as {
        workers: { pid: number }[];
      };
      const pids = workers.map(({ pid }) => `${pid}`);
      const called = await a.must(['/usr/bin/python3', '/srv/leave.py', b.host.address(family), ...pids]);
      expect(await agent.logged(called.trim())).toMatchObject({
        caller: 'unknown',
        user: null,
      });
    },
  );
});

describe('one caller', () => {
  const greedy = async (): Promise<string> => {
    await a.must(['rm', '-f', '/run/greedy.service.out']);
    await a.must(['systemctl', 'start', 'greedy.service']);
    const output = async () => (await a.must(['cat', '/run/greedy.service.out'])) || undefined;
    return await waitFor('it has opened all', output, { timeoutMs: 30_000 });
  };

  test('has its share of connections and no more, again and again; others are not touched', async () => {
    await unit('greedy.service', `ExecStart=/usr/bin/python3 /srv/greedy.py ${b.host.ipv4} ${SHARE + 300}\n`);
    const asked = `${SHARE} 300\n`;
    expect(await greedy()).toBe(asked);
    await a.must(['systemctl', 'start', 'orders.service']);
    const over = (await agent.accessLog()).filter(({ reason }) => reason === 'overload');
    expect(over).toHaveLength(300);
    expect(over[0]).toMatchObject({
      caller: 'unit:greedy.service',
      path: 'none',
      detail: `limits.callerPercent: this caller has ${SHARE} connections already`,
    });
    await waitFor('the metrics page counts them', async () =>
      /^mesh_node_caller_over_limit_total\{caller="unit:greedy.service"\} 300$/m.test(await agent.metrics()),
    );
    // What it held is free again when it ends: exactly as much can be had once more.
    await a.must(['systemctl', 'stop', 'greedy.service']);
    await waitFor('all are closed', async () =>
      /^mesh_node_connections_active\{direction="outbound"\} 0$/m.test(await agent.metrics()),
    );
    expect(await greedy()).toBe(asked);
    await a.must(['systemctl', 'stop', 'greedy.service']);
  });

  test('is not asked for, nor held back, with caller.identify off', async () => {
    const file = '/etc/mesh-node/mesh-node.yaml';
    const config = JSON.parse(await a.must(['cat', file])) as Record<string, unknown>;
    await a.write(file, JSON.stringify({ ...config, caller: { identify: false } }));
    await a.must(['systemctl', 'reload', 'mesh-node.service']);
    const called = await waitFor('nobody is named', async () => {
      const [address] = lines(await a.must(['/usr/bin/python3', '/srv/call.py', b.host.ipv4]));
      const line = await agent.logged(address!);
      return line.caller === null && line;
    });
    expect(called).toMatchObject({ caller: null, user: null, reason: 'done' });
    expect(await greedy()).toBe(`${SHARE + 300} 0\n`);
    await a.must(['systemctl', 'stop', 'greedy.service']);
  });
});
