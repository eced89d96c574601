import { CpuMeter } from '../measure/cpu.ts';
import { iperf } from '../measure/iperf.ts';
import type { Sample } from '../measure/sample.ts';
import type { Bench, Scenario } from './scenario.ts';

/** One connection that sends as fast as it can; CPU of the subject for what arrived. */
async function measure(
  { site, backend, subject }: Bench,
  _connections: number,
  seconds: number,
): Promise<Sample> {
  const meter = new CpuMeter(subject.pids);
  meter.start();
  const sent = await iperf({ namespace: site.client.namespace, part: 'load' }, backend.bulk, seconds);
  const { cpuSeconds, coreShare } = meter.stop();
  return { cpuSecondsPerGb: (cpuSeconds * 1e9) / sent.bytes, gbitPerSecond: sent.gbitPerSecond, coreShare };
}

/** Bulk transfer from client to server. */
export const bulkScenarios: readonly Scenario[] = [
  {
    name: 'bulk',
    title: 'one bulk transfer (iperf3) through one proxy',
    role: 'single',
    connections: [1],
    reference: 'haproxy',
    lives: 'rounds',
    measure,
  },
  {
    name: 'tunnel-bulk',
    title: 'one bulk transfer (iperf3) through two proxies with mutual TLS 1.3 between them',
    role: 'pair',
    connections: [1],
    reference: 'haproxy',
    lives: 'rounds',
    measure,
  },
];
