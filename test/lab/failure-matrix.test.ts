import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Fault, faults, slowProcesses, stopProcesses } from '../support/fault.ts';
import { TUNNEL_PORT } from '../support/mesh.ts';
import { type Running, waitFor } from '../support/process.ts';
import { serf } from '../support/servers.ts';
import { Site, type SitePlan } from '../support/site.ts';
import { REPOSITORY, Topology } from '../support/topology.ts';
import { Beat, type Call, Held, knock, trafficServer } from '../support/traffic.ts';
import { blackhole } from '../support/wire.ts';
import { twoZones } from '../support/zones.ts';

/*
 * Every link of caller → agent → agent → callee, of zone → zone and of agent → registry, with its far side killed, stopped,
 * blackholed and slow: what it cost the callers, measured. The table in docs/failure.md is written from here
 * (MESH_RECORD=1), and every cell has a bound.
 */

const OPEN = 7000;
const CLOSED = 7001;
/** Address that means the service `open` as a whole, as an old load balancer's would. */
const ANY = '192.0.2.10';
const GOSSIP = 7002;
const SERF_RPC = 7373;

const BEAT_MS = 40;
/** A caller gives up after this: what takes longer is lost. */
const GIVE_UP_MS = 4000;
/** A connection that takes longer than this is slower than anything that a healthy mesh does on a busy test machine. */
const GOOD_MS = 500;
/** How long a fault lasts, at least; and how long all must be well again before the next one. */
const FAULT_MS = 2500;
const CALM_CALLS = 12;

const DOCUMENT = join(REPOSITORY, 'docs/failure.md');
const BEGIN = '<!-- measured: begin -->';
const END = '<!-- measured: end -->';

/** What a fault cost. */
interface Cell {
  readonly calls: number;
  readonly lost: number;
  /** From the fault until callers were served well again, whether or not the fault went on; 0: they never noticed. */
  readonly recoveryMs: number;
  /** The connection that was open when it happened. */
  readonly open: 'kept' | 'lost';
}

interface Link {
  readonly name: string;
  readonly faults: readonly Fault[];
  /** Who is called from host a, and on which port. */
  readonly to: () => readonly [string, number];
  /** Makes the fault; the answer takes it back. */
  readonly break: (fault: Fault) => Promise<() => Promise<unknown>>;
  /** Bound on the time until callers are served again; beyond FAULT_MS: not before the fault is over. */
  readonly within: (fault: Fault) => number;
}

let topology: Topology;
let site: Site;
let registry: Running;
/** The server of `open` on b. */
let instance: Running;
const cells = new Map<string, Map<Fault, Cell>>();

async function gossip(): Promise<void> {
  registry = await serf(topology.host('a'), { tags: { zone: 'dc1' }, join: [topology.host('b')] });
}

beforeAll(async () => {
  topology = await Topology.create('mnfm', twoZones);
  site = await Site.create(topology);
  const [b, c] = [topology.host('b'), topology.host('c')];
  instance = await trafficServer(b, OPEN);
  await Promise.all([
    ...[CLOSED, GOSSIP].map((port) => trafficServer(b, port)),
    ...[OPEN, CLOSED].map((port) => trafficServer(c, port)),
  ]);
  await serf(b, { tags: { zone: 'dc1', mesh: `${TUNNEL_PORT}`, services: `gossip:${GOSSIP}` } });
  await gossip();
  const plan: SitePlan = {
    services: { open: OPEN, closed: CLOSED },
    properties: {
      open: { addresses: [`${ANY}:${OPEN}`] },
      closed: { mode: 'strict', addresses: [`${ANY}:${CLOSED}`] },
    },
    grants: { b: { host: ['open', 'closed', 'gossip'] } },
    config: { capture: { deadAfter: '1s' }, daemon: { workers: 1 }, tunnel: { keepaliveInterval: '1s' } },
  };
  await site.start(plan, async (mesh) => {
    if (!['a', 'b'].includes(mesh.host.name)) return;
    const config = JSON.parse(await readFile(mesh.configFile, 'utf8')) as { registries: object[] };
    config.registries.push({ type: 'serf' });
    await writeFile(mesh.configFile, JSON.stringify(config));
  });
  const ways = [
    [ANY, OPEN],
    [ANY, CLOSED],
    [b.ipv4, GOSSIP],
    [c.ipv4, OPEN],
  ] as const;
  for (const [to, port] of ways) {
    const served = async () => (await knock(topology.host('a'), to, port)).echoed === 1;
    await waitFor(`the mesh serves ${to}:${port}`, served, { timeoutMs: 30_000 });
  }
}, 180_000);

afterAll(async () => {
  try {
    await record();
  } finally {
    await topology.stop();
  }
});

const agent = (name: string) => site.mesh(name);

/** What is done to every process of an agent; `restart` after it was killed. */
async function breakAgent(name: string, fault: Fault): Promise<() => Promise<unknown>> {
  const mesh = agent(name);
  if (fault === 'blackholed') return blackhole(topology.host(name), 'ipv4', TUNNEL_PORT);
  const pids = await mesh.processes();
  if (fault === 'stopped') return stopProcesses(pids);
  if (fault === 'slow') return slowProcesses(pids);
  await mesh.signalAll('SIGKILL', pids);
  await mesh.running.ended;
  return () => mesh.start();
}

async function breakProcess(
  running: Running,
  fault: Fault,
  restart: () => Promise<unknown>,
  port: readonly [host: string, port: number],
): Promise<() => Promise<unknown>> {
  if (fault === 'blackholed') return blackhole(topology.host(port[0]), 'ipv4', port[1]);
  if (fault === 'stopped') return stopProcesses([running.pid]);
  if (fault === 'slow') return slowProcesses([running.pid]);
  running.kill('SIGKILL');
  await running.ended;
  return restart;
}

/** A zone-agent that carries what a sends to the other data centre just now, on this or on the far side. */
async function gatewayInUse(side: 'gw1' | 'gw2'): Promise<string> {
  const from = side === 'gw1' ? ['a'] : ['gw1a', 'gw1b'];
  return waitFor(`a tunnel to ${side}`, async () => {
    for (const name of from) {
      const { tunnels } = (await agent(name).api('/v1/tunnels')) as {
        tunnels: { peer: string; streams: number }[];
      };
      const found = tunnels.find(({ peer, streams }) => peer.startsWith(side) && streams > 0);
      if (found !== undefined) return found.peer;
    }
    return undefined;
  });
}

const UNTIL_OVER = Number.POSITIVE_INFINITY;
const PROCESS_FAULTS = ['killed', 'stopped', 'slow'] as const;
const anyInstance = (): readonly [string, number] => [ANY, OPEN];
const nearInstance = (): readonly [string, number] => [topology.host('b').ipv4, OPEN];
const otherZone = (): readonly [string, number] => [topology.host('c').ipv4, OPEN];

const links: readonly Link[] = [
  {
    name: 'application → agent: its worker',
    faults: PROCESS_FAULTS,
    to: nearInstance,
    break: async (fault) => {
      const pids = await agent('a').workers();
      if (fault === 'slow') return slowProcesses(pids);
      if (fault === 'stopped') return stopProcesses(pids);
      for (const pid of pids) process.kill(pid, 'SIGKILL');
      return async () => {};
    },
    within: (fault) => (fault === 'slow' ? UNTIL_OVER : 3000),
  },
  {
    name: 'application → agent: its supervisor',
    faults: PROCESS_FAULTS,
    to: nearInstance,
    break: async (fault) => {
      const { running } = agent('a');
      if (fault === 'slow') return slowProcesses([running.pid]);
      if (fault === 'stopped') return stopProcesses([running.pid]);
      running.kill('SIGKILL');
      await running.ended;
      return () => agent('a').start();
    },
    within: () => 2000,
  },
  {
    name: 'application → agent: all of it',
    faults: PROCESS_FAULTS,
    to: nearInstance,
    break: (fault) => breakAgent('a', fault),
    within: (fault) => (fault === 'slow' ? UNTIL_OVER : 2000),
  },
  {
    name: 'agent → agent, permissive instance',
    faults,
    to: nearInstance,
    break: (fault) => breakAgent('b', fault),
    within: (fault) => (fault === 'slow' ? UNTIL_OVER : 4000),
  },
  {
    name: 'agent → agent, strict service',
    faults,
    to: () => [ANY, CLOSED],
    break: (fault) => breakAgent('b', fault),
    within: (fault) => (fault === 'slow' ? UNTIL_OVER : 4000),
  },
  {
    name: 'agent → callee',
    faults,
    to: anyInstance,
    break: (fault) =>
      breakProcess(
        instance,
        fault,
        async () => {
          instance = await trafficServer(topology.host('b'), OPEN);
        },
        ['b', OPEN],
      ),
    within: (fault) => (fault === 'killed' ? 2000 : UNTIL_OVER),
  },
  {
    name: 'agent → zone-agent',
    faults,
    to: otherZone,
    break: async (fault) => breakAgent(await gatewayInUse('gw1'), fault),
    within: (fault) => (fault === 'slow' ? UNTIL_OVER : 6000),
  },
  {
    name: 'zone-agent → zone-agent',
    faults,
    to: otherZone,
    break: async (fault) => breakAgent(await gatewayInUse('gw2'), fault),
    within: (fault) => (fault === 'slow' ? UNTIL_OVER : 6000),
  },
  {
    name: 'agent → registry',
    faults,
    to: () => [topology.host('b').ipv4, GOSSIP],
    break: (fault) => breakProcess(registry, fault, gossip, ['a', SERF_RPC]),
    within: () => 0,
  },
];

/** What a fault cost those who called: everything that began after it and did not go well. */
function cost(calls: readonly Call[], brokenAt: number, held: Held): Cell {
  const since = calls.filter(({ at, ms }) => at + ms >= brokenAt);
  const bad = since.filter(({ ok, ms }) => !ok || ms > GOOD_MS);
  const last = Math.max(0, ...bad.map(({ at }) => at - brokenAt + BEAT_MS));
  return {
    calls: since.length,
    lost: since.filter(({ ok }) => !ok).length,
    recoveryMs: bad.length === 0 ? 0 : Math.max(BEAT_MS, last),
    open: held.lost === undefined ? 'kept' : 'lost',
  };
}

describe.each(links)('$name', ({ name, faults: possible, to, break: breakIt, within }) => {
  test.each(possible)('%s', async (fault) => {
    const a = topology.host('a');
    const held = await Held.open(a, ...to());
    const beat = await Beat.start(a, ...to(), { everyMs: BEAT_MS, goodMs: GOOD_MS, giveUpMs: GIVE_UP_MS });
    const brokenAt = Date.now();
    const mend = await breakIt(fault);
    const lasting = pause(FAULT_MS);
    const bound = within(fault);
    try {
      // A fault lasts until its callers are served again, where that does not wait for its end.
      if (bound !== UNTIL_OVER) await beat.calm(CALM_CALLS);
    } finally {
      await lasting;
      await mend();
    }
    await beat.calm(CALM_CALLS);
    const cell = cost(await beat.stop(), brokenAt, held);
    const row = cells.get(name) ?? new Map<Fault, Cell>();
    cells.set(name, row.set(fault, cell));
    await held.close();
    expect(cell.recoveryMs).toBeLessThanOrEqual(bound + GOOD_MS);
    if (bound === 0) expect(cell).toMatchObject({ lost: 0, open: 'kept' });
  });
});

function text(cell: Cell | undefined, bound: number): string {
  if (cell === undefined) return '–';
  const lost = cell.lost === 0 ? 'none lost' : `${cell.lost} of ${cell.calls} lost`;
  const recovery = (cell.recoveryMs / 1000).toFixed(1);
  const when =
    cell.recoveryMs === 0
      ? 'not noticed'
      : bound === UNTIL_OVER
        ? `slower for ${recovery} s`
        : `served again after ${recovery} s`;
  return `${lost}, ${when}; open connection ${cell.open}`;
}

/** Writes the table into the document when asked to; compares its rows and columns otherwise. */
async function record(): Promise<void> {
  const rows = links.map(({ name, within }) => {
    const row = faults.map((fault) => text(cells.get(name)?.get(fault), within(fault)));
    return `| ${name} | ${row.join(' | ')} |`;
  });
  const table = [
    `| link | ${faults.join(' | ')} |`,
    `|---|${faults.map(() => '---|').join('')}`,
    ...rows,
  ].join('\n');
  console.log(table);
  if (process.env['MESH_RECORD'] === undefined) return;
  const document = await readFile(DOCUMENT, 'utf8');
  const [head, tail] = [document.indexOf(BEGIN) + BEGIN.length, document.indexOf(END)];
  if (head < BEGIN.length || tail < 0) throw new Error(`${DOCUMENT}: the marks of the table are missing`);
  await writeFile(DOCUMENT, `${document.slice(0, head)}\n${table}\n${document.slice(tail)}`);
}
