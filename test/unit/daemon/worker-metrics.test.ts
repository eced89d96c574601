import { expect, it } from 'vitest';
import type { EjectionReason, HealthState } from '../../../src/balance/health.ts';
import { WorkerMetrics } from '../../../src/daemon/worker/worker-metrics.ts';
import type { InstanceId, ServiceName } from '../../../src/model/service.ts';

const service = 'web' as ServiceName;

function setup() {
  const metrics = new WorkerMetrics('worker-0');
  const move = (from: HealthState, to: HealthState, reason: EjectionReason) =>
    metrics.health({ service, instance: 'a' as InstanceId, from, to, reason, until: undefined });
  /** Values of what changed, by labels. */
  const drained = (name: string) =>
    Object.fromEntries(
      metrics
        .drain([])
        .filter(([sample]) => sample === `mesh_node_${name}`)
        .map(([, labels, numbers]) => [labels.join(' '), numbers[0]]),
    );
  return { metrics, move, drained };
}

it('counts ejections by their reason', () => {
  const { move, drained } = setup();
  move('healthy', 'ejected', 'consecutive');
  move('ejected', 'trial', 'consecutive');
  move('trial', 'ejected', 'consecutive');
  move('healthy', 'ejected', 'probe');
  expect(drained('ejections_total')).toEqual({ 'web consecutive': 2, 'web probe': 1 });
});

it('knows how many are out now, those included that left the catalogue meanwhile', () => {
  const { metrics, move, drained } = setup();
  move('healthy', 'ejected', 'latency');
  move('healthy', 'ejected', 'probe');
  move('ejected', 'trial', 'latency');
  expect(drained('ejected_instances')).toEqual({ web: 2 });
  metrics.forgotten(service);
  move('trial', 'healthy', 'latency');
  expect(drained('ejected_instances')).toEqual({ web: 0 });
});

it('counts probes by service and outcome', () => {
  const { metrics, drained } = setup();
  metrics.probed(service, 'reached');
  metrics.probed(service, 'reached');
  metrics.probed(service, 'unreached');
  expect(drained('probes_total')).toEqual({ 'web reached': 2, 'web unreached': 1 });
});
