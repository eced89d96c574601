import { type Metric, Registry } from 'prom-client';
import type { MetricsDelta } from './counters.ts';
import { definitionOf, type MetricDefinition, metrics } from './definitions.ts';
import { LabelCaps } from './label-caps.ts';

/** Most series of one metric; a process that invents label values cannot fill the supervisor's memory. */
const MOST_SERIES = 20_000;

interface Series {
  readonly labels: readonly string[];
  /** Counter: the total. Histogram: sum and counts. Gauge: unused. */
  readonly total: number[];
  /** Gauge: the newest value of each process; they are added up. */
  readonly byProcess: Map<string, number>;
}

interface Sample {
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
  readonly metricName?: string;
}

/** The supervisor's sum of what all processes counted, in the text format of Prometheus. */
export class MetricsRegistry {
  readonly #series = new Map<MetricDefinition, Map<string, Series>>();
  readonly #caps = new LabelCaps();
  readonly #registry = new Registry();

  constructor() {
    for (const definition of Object.values(metrics) as readonly MetricDefinition[]) {
      this.#series.set(definition, new Map());
      // prom-client's own histogram cannot take over counted buckets; a registry needs no more of a metric than this.
      const metric = {
        name: definition.name,
        help: definition.help,
        type: definition.type,
        aggregator: 'sum',
        get: async () => ({
          name: definition.name,
          help: definition.help,
          type: definition.type,
          aggregator: 'sum',
          values: this.#samples(definition),
        }),
        reset: () => undefined,
      };
      this.#registry.registerMetric(metric as unknown as Metric);
    }
  }

  /** Content type of {@link text}. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /**
   * Adds what a process counted. `process` is `supervisor` or a worker's name. What this version does not know
   * (another name, other labels, other buckets) is left out: versions mix while an upgrade is under way.
   */
  merge(process: string, delta: MetricsDelta): void {
    for (const [name, labels, numbers] of delta) {
      const definition = definitionOf(name);
      const width = definition?.type === 'histogram' ? definition.buckets.length + 2 : 1;
      if (definition === undefined || labels.length !== definition.labels.length || numbers.length !== width)
        continue;
      const series = this.#seriesOf(definition, labels);
      if (series === undefined) continue;
      if (definition.type === 'gauge') series.byProcess.set(process, numbers[0]!);
      else for (let i = 0; i < width; i++) series.total[i]! += numbers[i]!;
    }
  }

  /** A process is gone: its gauges no longer count. */
  forget(process: string): void {
    for (const [definition, bySeries] of this.#series) {
      if (definition.type !== 'gauge') continue;
      for (const [key, series] of bySeries) {
        series.byProcess.delete(process);
        if (series.byProcess.size === 0) bySeries.delete(key);
      }
    }
  }

  /** Everything, as `GET /metrics` answers it. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  #seriesOf(definition: MetricDefinition, given: readonly string[]): Series | undefined {
    const bySeries = this.#series.get(definition)!;
    const labels = this.#caps.of(definition.labels, given);
    const key = labels.join('\n');
    let series = bySeries.get(key);
    if (series === undefined) {
      if (bySeries.size >= MOST_SERIES) return undefined;
      const width = definition.type === 'histogram' ? definition.buckets.length + 2 : 1;
      series = { labels, total: new Array<number>(width).fill(0), byProcess: new Map() };
      bySeries.set(key, series);
    }
    return series;
  }

  #samples(definition: MetricDefinition): readonly Sample[] {
    const samples: Sample[] = [];
    for (const { labels: values, total, byProcess } of this.#series.get(definition)!.values()) {
      const labels = Object.fromEntries(definition.labels.map((label, i) => [label, values[i]!]));
      if (definition.type === 'counter') samples.push({ labels, value: total[0]! });
      else if (definition.type === 'gauge') {
        let value = 0;
        for (const one of byProcess.values()) value += one;
        samples.push({ labels, value });
      } else samples.push(...histogramSamples(definition, labels, total));
    }
    return samples;
  }
}

/** Prometheus wants cumulative buckets, then sum and count. */
function histogramSamples(
  definition: MetricDefinition,
  labels: Readonly<Record<string, string>>,
  [sum = 0, ...counts]: readonly number[],
): readonly Sample[] {
  const samples: Sample[] = [];
  let cumulative = 0;
  counts.forEach((count, i) => {
    cumulative += count;
    const le = definition.buckets[i] ?? '+Inf';
    samples.push({ metricName: `${definition.name}_bucket`, labels: { ...labels, le }, value: cumulative });
  });
  samples.push({ metricName: `${definition.name}_sum`, labels, value: sum });
  samples.push({ metricName: `${definition.name}_count`, labels, value: cumulative });
  return samples;
}
