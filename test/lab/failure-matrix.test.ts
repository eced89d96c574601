import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TunnelsAnswer } from '../../src/admin/api.ts';
import { type Fault, faults, slowProcesses, stopProcesses } from '../support/fault.ts';
import { TUNNEL_PORT } from '../support/mesh.ts';
import { type Running, waitFor } from '../support/process.ts';
import { serf } from '../support/servers.ts';
import { Site, type SitePlan } from '../support/site.ts';
import { REPOSITORY, Topology } from '../support/topology.ts';
import { Beat, Held, knock, trafficServer } from '../support/traffic.ts';
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
/** How long all must be well again before a fault is taken to be overcome. */
const CALM_CALLS = 12;
/** How long a fault lasts, at least: where a way around is found by silence, until what was silent is given up for lost. */
const FAULT_MS = 1000;
const SILENCE_MS = 2500;
/** Callers are served again within this where there is any way around: goal, and what a busy test machine adds. */
const AROUND_MS = 2500;
const SLACK_MS = 500;

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
  /** In the order in which they are made: after a kill, dials pause for a while, and instances may be set aside. */
  readonly faults: readonly Fault[];
  /** Who is called from host a, and on which port. */
  readonly to: () => readonly [string, number];
  /** Agent to which a has to have a tunnel, so that it is the way of these callers. */
  readonly through?: string;
  /** Makes the fault; the answer takes it back. */
  readonly break: (fault: Fault) => Promise<() => Promise<unknown>>;
  /** Bound on the time until callers are served again. */
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
    config: { capture: { deadAfter: '1s' }, daemon: { workers: 1 } },
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
});

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

/** More than the PINGs of a tunnel that carries nothing, in bytes. */
const CARRIED = 1000;

/** The zone-agent that carries what a sends to the other data centre just now, on this or on the far side. */
async function gatewayInUse(side: 'gw1' | 'gw2'): Promise<string> {
  const from = side === 'gw1' ? ['a'] : ['gw1a', 'gw1b'];
  const network = side === 'gw1' ? 'dc1' : 'ingress';
  const gateways = [`${side}a`, `${side}b`];
  /** The kernel's count of what was sent to each of them. */
  const carried = async (): Promise<ReadonlyMap<string, number>> => {
    const bytes = new Map<string, number>();
    for (const name of from) {
      const ss = ['ss', '-HtinO', 'state', 'established', `dport = :${TUNNEL_PORT}`];
      for (const line of (await topology.host(name).must(ss)).split('\n')) {
        const to = gateways.find((gateway) =>
          line.includes(` ${topology.host(gateway).address('ipv4', network)}:`),
        );
        const sent = Number(/\bbytes_sent:(\d+)/.exec(line)?.[1] ?? 0);
        if (to !== undefined) bytes.set(to, (bytes.get(to) ?? 0) + sent);
      }
    }
    return bytes;
  };
  const before = await carried();
  return waitFor(`a tunnel to ${side} carries something`, async () => {
    const now = await carried();
    return gateways.find((gateway) => (now.get(gateway) ?? 0) - (before.get(gateway) ?? 0) > CARRIED);
  });
}

/** Waits until a has a tunnel to this peer: after a kill, dials pause for a while. */
function tunnelTo(peer: string): Promise<unknown> {
  return waitFor(`a tunnel to ${peer}`, async () => {
    const { tunnels } = (await agent('a').api('/v1/tunnels')) as TunnelsAnswer;
    return tunnels.some((tunnel) => tunnel.peer === peer && tunnel.state === 'open');
  });
}

/** Not before the fault is over. */
const UNTIL_OVER = Number.POSITIVE_INFINITY;
const UNNOTICED = 0;
const PROCESS_FAULTS = ['stopped', 'slow', 'killed'] as const;
const ALL_FAULTS = ['stopped', 'blackholed', 'slow', 'killed'] as const satisfies readonly Fault[];
const around = (fault: Fault): number => (fault === 'slow' ? UNTIL_OVER : AROUND_MS);
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
    within: around,
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
    within: (fault) => (fault === 'killed' ? AROUND_MS : UNNOTICED),
  },
  {
    name: 'application → agent: all of it',
    faults: PROCESS_FAULTS,
    to: nearInstance,
    break: (fault) => breakAgent('a', fault),
    within: around,
  },
  {
    name: 'agent → agent, permissive instance',
    faults: ALL_FAULTS,
    to: nearInstance,
    through: 'b',
    break: (fault) => breakAgent('b', fault),
    within: around,
  },
  {
    name: 'agent → agent, strict service',
    faults: ALL_FAULTS,
    to: () => [ANY, CLOSED],
    through: 'b',
    break: (fault) => breakAgent('b', fault),
    within: around,
  },
  {
    name: 'agent → callee',
    faults: ALL_FAULTS,
    to: anyInstance,
    through: 'b',
    break: (fault) =>
      breakProcess(
        instance,
        fault,
        async () => {
          instance = await trafficServer(topology.host('b'), OPEN);
        },
        ['b', OPEN],
      ),
    within: (fault) => (fault === 'killed' ? AROUND_MS : UNTIL_OVER),
  },
  {
    name: 'agent → zone-agent',
    faults: ALL_FAULTS,
    to: otherZone,
    break: async (fault) => breakAgent(await gatewayInUse('gw1'), fault),
    within: around,
  },
  {
    name: 'zone-agent → zone-agent',
    faults: ALL_FAULTS,
    to: otherZone,
    break: async (fault) => breakAgent(await gatewayInUse('gw2'), fault),
    within: around,
  },
  {
    name: 'agent → registry',
    faults: ALL_FAULTS,
    to: () => [topology.host('b').ipv4, GOSSIP],
    through: 'b',
    break: (fault) => breakProcess(registry, fault, gossip, ['a', SERF_RPC]),
    within: () => UNNOTICED,
  },
];

/** What a fault cost those who called: everything that ended after it and did not go well. */
function cost(beat: Beat, brokenAt: number, mendedAt: number, held: Held): Cell {
  const since = beat.calls.filter(({ at, ms }) => at + ms >= brokenAt);
  // Of those that began when the fault was over (a whole agent starts beside them then) the lost ones count, not the slow.
  const bad = since.filter((call) => (call.at < mendedAt ? !beat.well(call) : !call.ok));
  return {
    calls: since.length,
    lost: since.filter(({ ok }) => !ok).length,
    recoveryMs: bad.length === 0 ? 0 : Math.max(...bad.map(({ at }) => at - brokenAt), 0) + BEAT_MS,
    open: held.lost === undefined ? 'kept' : 'lost',
  };
}

describe.each(links)('$name', ({ name, faults: possible, to, through, break: breakIt, within }) => {
  const row = new Map<Fault, Cell>();
  let beat: Beat;
  beforeAll(async () => {
    cells.set(name, row);
    const plan = { everyMs: BEAT_MS, goodMs: GOOD_MS, giveUpMs: GIVE_UP_MS };
    beat = await Beat.start(topology.host('a'), ...to(), plan);
  });
  afterAll(() => beat.stop());

  test.each(possible)('%s', async (fault) => {
    if (through !== undefined) await tunnelTo(through);
    const held = await Held.open(topology.host('a'), ...to());
    const bound = within(fault);
    const bySilence = bound === AROUND_MS && fault !== 'killed';
    const brokenAt = Date.now();
    const mend = await breakIt(fault);
    let mendedAt = Number.POSITIVE_INFINITY;
    const lasting = pause(bySilence ? SILENCE_MS : FAULT_MS);
    try {
      // A fault lasts until its callers are served again, where that does not wait for its end.
      if (bound !== UNTIL_OVER) await beat.calm(CALM_CALLS);
    } finally {
      await lasting;
      mendedAt = bound === UNTIL_OVER ? Number.POSITIVE_INFINITY : Date.now();
      await mend();
    }
    await beat.calm(CALM_CALLS);
    await beat.settled();
    const cell = cost(beat, brokenAt, mendedAt, held);
    row.set(fault, cell);
    await held.close();
    expect(cell.recoveryMs).toBeLessThanOrEqual(bound + SLACK_MS);
    if (bound === UNNOTICED) expect(cell).toMatchObject({ lost: 0, open: 'kept' });
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
