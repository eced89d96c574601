import type { InstanceId } from '../model/service.ts';
import type { EjectionReason, HealthState } from './health.ts';
import type { InstanceRecord } from './instance-record.ts';

/** What is shown of an instance. */
export interface InstanceView {
  readonly id: InstanceId;
  readonly state: HealthState;
  /** Why it is, or was last, set aside; undefined while it is healthy. */
  readonly reason: EjectionReason | undefined;
  /** In a row. */
  readonly failures: number;
  readonly active: number;
  /** End of the ejection in milliseconds of the balancer's clock; undefined also where only probes end it. */
  readonly until: number | undefined;
  /** Moving average of the delay; undefined where none was measured. */
  readonly latencyMs: number | undefined;
  /** Part of its weight that slow start allows. */
  readonly share: number;
}

/** `now`, `slowStart`: in milliseconds. */
export function viewOf(record: InstanceRecord, now: number, slowStart: number): InstanceView {
  const { instance, health, latency, active } = record;
  return {
    id: instance.id,
    state: health.state,
    reason: health.state === 'healthy' ? undefined : health.reason,
    failures: health.failures,
    active,
    until: health.state === 'ejected' && !health.held ? health.until : undefined,
    latencyMs: latency.measured ? latency.estimate : undefined,
    share: record.share(now, slowStart),
  };
}
