import { CpuMeter } from '../measure/cpu.ts';
import { readMemory } from '../measure/memory.ts';
import type { Sample } from '../measure/sample.ts';
import { holdPeers } from '../peers.ts';
import type { Bench, Scenario } from './scenario.ts';

/** Peers are watched for at least this long, so that the keepalive of every tunnel is in the figure (10 s by default). */
const PEER_SECONDS = 10;

/** Memory growth and the CPU of doing nothing, with `open` of something open. */
async function measureHeld(
  pids: readonly number[],
  count: number,
  seconds: number,
  open: () => Promise<() => Promise<void>>,
): Promise<Sample> {
  if (pids.length === 0) return {};
  const before = readMemory(pids);
  const release = await open();
  const after = readMemory(pids);
  const meter = new CpuMeter(pids);
  meter.start();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const { coreShare } = meter.stop();
  await release();
  return { ...after, pssBytesPerConnection: (after.pssBytes - before.pssBytes) / count, coreShare };
}

async function idle(
  { site, backend, subject }: Bench,
  connections: number,
  seconds: number,
): Promise<Sample> {
  return measureHeld(subject.pids, connections, seconds, async () => {
    await site.probe.hold(backend.http, connections);
    return () => site.probe.release();
  });
}

async function peers({ site, subject }: Bench, connections: number, seconds: number): Promise<Sample> {
  const accepting = subject.peers;
  if (accepting === undefined) return {};
  return measureHeld(accepting.pids, connections, Math.max(seconds, PEER_SECONDS), () =>
    holdPeers(site, accepting.port, connections),
  );
}

/** Memory, and CPU at rest. */
export const idleScenarios: readonly Scenario[] = [
  {
    name: 'idle',
    title: 'memory with idle connections open through one proxy; cores: the CPU of holding them',
    role: 'single',
    connections: [1000],
    reference: 'haproxy',
    lives: 'fresh',
    measure: idle,
  },
  {
    name: 'peers',
    title: 'memory of one accepting proxy with idle tunnels of other hosts (HAProxy: TLS connections)',
    role: 'pair',
    connections: [2000],
    reference: 'haproxy',
    lives: 'fresh',
    measure: peers,
  },
];
