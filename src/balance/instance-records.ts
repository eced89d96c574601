import type { InstanceId, Service } from '../model/service.ts';
import { InstanceRecord } from './instance-record.ts';
import { DEFAULT_LATENCY_MS } from './peak-ewma.ts';
import type { EjectionRule } from './rule.ts';

/** What is known of the instances of one service: of those in its newest version, and of no others. */
export class InstanceRecords {
  readonly #records = new Map<InstanceId, InstanceRecord>();

  get(id: InstanceId): InstanceRecord | undefined {
    return this.#records.get(id);
  }

  /** True while this is what is known of a registered instance. */
  has(record: InstanceRecord): boolean {
    return this.#records.get(record.instance.id) === record;
  }

  all(): Iterable<InstanceRecord> {
    return this.#records.values();
  }

  /**
   * Records stay with the instances that stayed; answers those that are over. `since`: from when on the others are there, those
   * included that were draining.
   */
  update({ instances }: Service, now: number, since: number): InstanceRecord[] {
    const records = this.#records;
    const ids = new Set(instances.map(({ id }) => id));
    const gone: InstanceRecord[] = [];
    for (const [id, record] of records) {
      if (ids.has(id)) continue;
      records.delete(id);
      gone.push(record);
    }
    const latency = this.usualLatency();
    for (const instance of instances) {
      const record = records.get(instance.id);
      if (record === undefined) {
        records.set(instance.id, new InstanceRecord(instance, latency, now, since));
      } else {
        if (record.instance.draining && !instance.draining) record.since = since;
        record.instance = instance;
      }
    }
    return gone;
  }

  /** What is expected of an instance of which nothing is known, in ms: the median of those that were measured. */
  usualLatency(): number {
    const known: number[] = [];
    for (const { latency } of this.#records.values()) if (latency.measured) known.push(latency.estimate);
    return known.sort((a, b) => a - b)[known.length >> 1] ?? DEFAULT_LATENCY_MS;
  }

  /** Nothing that was measured counts any more. */
  restartLatencies(now: number): void {
    for (const { latency } of this.#records.values()) latency.restart(DEFAULT_LATENCY_MS, now);
  }

  /** Another interval of comparison begins. */
  resetCounts(): void {
    for (const record of this.#records.values()) record.resetCounts();
  }

  /** Whether one more may be set aside. Those on trial are still out. */
  mayEject({ maxOut, alwaysOut }: EjectionRule): boolean {
    let present = 0;
    let out = 0;
    for (const { instance, health } of this.#records.values()) {
      if (instance.draining) continue;
      present++;
      if (health.state !== 'healthy') out++;
    }
    return (out + 1) * 100 <= present * maxOut || (out < alwaysOut && present > 1);
  }
}
