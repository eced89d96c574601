import { readdirSync, readFileSync } from 'node:fs';
import type { CounterHandle, Counters, GaugeHandle } from './counters.ts';
import { metrics } from './definitions.ts';

/** What one process uses of its host, measured when it is asked for. */
export class ProcessMetrics {
  readonly #cpu: CounterHandle;
  readonly #memory: GaugeHandle;
  readonly #descriptors: GaugeHandle;
  #spent = 0;

  /** `name` as in the log: `supervisor`, `worker-0`. */
  constructor(counters: Counters, name: string) {
    this.#cpu = counters.counter(metrics.processCpu, name);
    this.#memory = counters.gauge(metrics.processMemory, name);
    this.#descriptors = counters.gauge(metrics.processDescriptors, name);
    counters.gauge(metrics.processStart, name).set(Date.now() / 1000 - process.uptime());
    counters.gauge(metrics.processDescriptorsLimit, name).set(descriptorLimit());
  }

  measure(): void {
    const { user, system } = process.cpuUsage();
    const spent = (user + system) / 1e6;
    this.#cpu.add(spent - this.#spent);
    this.#spent = spent;
    try {
      this.#memory.set(process.memoryUsage.rss());
      this.#descriptors.set(readdirSync('/proc/self/fd').length - 1); // one is the directory itself
    } catch {
      // Both need a descriptor, and there is none left: that is when nothing may be lost to a measurement.
    }
  }
}

function descriptorLimit(): number {
  const soft = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft);
}
