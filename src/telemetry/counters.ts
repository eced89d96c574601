import type { MetricDefinition } from './definitions.ts';
import { LabelCaps } from './label-caps.ts';

/** One value for each label, in the order of the definition. */
type LabelValues<L extends readonly string[]> = { readonly [K in keyof L]: string };

/** Counts up. Handles are resolved once and kept; `add` is one addition. */
export interface CounterHandle {
  add(amount?: number): void;
}

/** Goes up and down. */
export interface GaugeHandle {
  set(value: number): void;
  add(amount: number): void;
}

/** Counts values in fixed buckets. */
export interface HistogramHandle {
  observe(value: number): void;
}

/**
 * What changed in one series: name, label values, numbers. Counter: one increment. Gauge: its value. Histogram: the
 * increment of the sum, then those of the buckets, +Inf last. Self-contained, so that a supervisor which adopts
 * running workers understands the first one that it sees.
 */
export type MetricSample = readonly [name: string, labels: readonly string[], numbers: readonly number[]];
export type MetricsDelta = readonly MetricSample[];

class Counter implements CounterHandle {
  #pending = 0;

  add(amount = 1): void {
    this.#pending += amount;
  }

  drain(): number[] | undefined {
    if (this.#pending === 0) return undefined;
    const taken = this.#pending;
    this.#pending = 0;
    return [taken];
  }
}

class Gauge implements GaugeHandle {
  #value = 0;
  #told = Number.NaN;

  set(value: number): void {
    this.#value = value;
  }

  add(amount: number): void {
    this.#value += amount;
  }

  drain(all: boolean): number[] | undefined {
    if (this.#value === this.#told && !all) return undefined;
    this.#told = this.#value;
    return [this.#value];
  }
}

class Histogram implements HistogramHandle {
  readonly #bounds: readonly number[];
  readonly #counts: Float64Array;
  #sum = 0;
  #observed = false;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    let at = 0;
    while (at < this.#bounds.length && value > this.#bounds[at]!) at++;
    this.#counts[at]! += 1;
    this.#sum += value;
    this.#observed = true;
  }

  drain(): number[] | undefined {
    if (!this.#observed) return undefined;
    const taken = [this.#sum, ...this.#counts];
    this.#counts.fill(0);
    this.#sum = 0;
    this.#observed = false;
    return taken;
  }
}

interface Series {
  readonly name: string;
  readonly labels: readonly string[];
  readonly handle: Counter | Gauge | Histogram;
}

/**
 * The counts of one process: plain numbers behind handles. `drain` takes what changed, for the supervisor's
 * {@link MetricsRegistry}.
 */
export class Counters {
  readonly #series = new Map<string, Series>();
  readonly #caps = new LabelCaps();

  counter<L extends readonly string[]>(
    definition: MetricDefinition<L>,
    ...labels: LabelValues<L>
  ): CounterHandle {
    return this.#handle(definition, labels) as Counter;
  }

  gauge<L extends readonly string[]>(
    definition: MetricDefinition<L>,
    ...labels: LabelValues<L>
  ): GaugeHandle {
    return this.#handle(definition, labels) as Gauge;
  }

  histogram<L extends readonly string[]>(
    definition: MetricDefinition<L>,
    ...labels: LabelValues<L>
  ): HistogramHandle {
    return this.#handle(definition, labels) as Histogram;
  }

  /** What changed since the last call; with `all` also gauges that did not (a new supervisor knows none of them). */
  drain(all = false): MetricsDelta {
    const delta: MetricSample[] = [];
    for (const { name, labels, handle } of this.#series.values()) {
      const numbers = handle.drain(all);
      if (numbers !== undefined) delta.push([name, labels, numbers]);
    }
    return delta;
  }

  #handle(definition: MetricDefinition, given: readonly string[]): Series['handle'] {
    const labels = this.#caps.of(definition.labels, given);
    const key = `${definition.name}\n${labels.join('\n')}`;
    const known = this.#series.get(key);
    if (known !== undefined) return known.handle;
    const handle =
      definition.type === 'counter'
        ? new Counter()
        : definition.type === 'gauge'
          ? new Gauge()
          : new Histogram(definition.buckets);
    this.#series.set(key, { name: definition.name, labels, handle });
    return handle;
  }
}
