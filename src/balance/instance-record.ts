import type { Instance } from '../model/service.ts';
import { InstanceHealth } from './health.ts';
import type { Seen } from './outliers.ts';
import { PeakEwma } from './peak-ewma.ts';
import type { Load } from './pickers/picker.ts';

/** Least share of an instance in slow start: with none it would never be seen to work. */
const LEAST_SHARE = 0.05;

/** Everything that this worker knows of one instance. */
export class InstanceRecord implements Load, Seen {
  /** As the newest catalogue has it. */
  instance: Instance;
  readonly health = new InstanceHealth();
  readonly latency: PeakEwma;
  /** Tokens that are out. */
  active = 0;
  /** Since when it is there, or back; `-Infinity`: from the beginning, so there is nothing to warm up to. */
  since: number;
  // Since the last comparison.
  requests = 0;
  failures = 0;
  timed = 0;
  milliseconds = 0;

  constructor(instance: Instance, latency: number, now: number, since: number) {
    this.instance = instance;
    this.latency = new PeakEwma(latency, now);
    this.since = since;
  }

  /** An answer, or for those that do not answer requests a connection, for the next comparison. */
  count(failed: boolean, milliseconds: number | undefined): void {
    this.requests++;
    if (failed) this.failures++;
    if (milliseconds === undefined) return;
    this.timed++;
    this.milliseconds += milliseconds;
  }

  /** Another interval begins. */
  resetCounts(): void {
    this.requests = 0;
    this.failures = 0;
    this.timed = 0;
    this.milliseconds = 0;
  }

  /** Part of its weight that it may have, after Envoy's slow start: it grows evenly from {@link LEAST_SHARE} to 1. */
  share(now: number, slowStart: number): number {
    if (slowStart === 0) return 1;
    const age = now - this.since;
    return age >= slowStart ? 1 : Math.max(age / slowStart, LEAST_SHARE);
  }
}
