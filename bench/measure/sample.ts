/** What one measurement yields. A scenario fills what it measures; units are in the names. */
export interface Sample {
  /** CPU of all processes of the subject for one request. */
  readonly cpuUsPerRequest?: number;
  readonly requestsPerSecond?: number;
  readonly p50Us?: number;
  readonly p99Us?: number;
  /** CPU of all processes of the subject for 10⁹ bytes carried. */
  readonly cpuSecondsPerGb?: number;
  readonly gbitPerSecond?: number;
  /** Cores that the subject used while it was measured: 1 is one core without pause. */
  readonly coreShare?: number;
  /** Resident memory of all processes; pages that processes share count in each of them. */
  readonly rssBytes?: number;
  /** Proportional memory of all processes; shared pages are divided among those that share them. */
  readonly pssBytes?: number;
  /** Growth of the proportional memory for each connection or peer that was added. */
  readonly pssBytesPerConnection?: number;
}

export type Metric = keyof Sample;

/** How a metric is shown. */
interface MetricFormat {
  readonly key: Metric;
  readonly heading: string;
  readonly show: (value: number) => string;
  /** False where a ratio to the reference says nothing about the subject. */
  readonly compared?: false;
}

/** Every metric in the order of the table. */
export const metrics: readonly MetricFormat[] = [
  { key: 'cpuUsPerRequest', heading: 'CPU µs/req', show: (value) => value.toFixed(1) },
  { key: 'requestsPerSecond', heading: 'req/s', show: (value) => value.toFixed(0) },
  { key: 'p50Us', heading: 'p50 µs', show: (value) => value.toFixed(0) },
  { key: 'p99Us', heading: 'p99 µs', show: (value) => value.toFixed(0) },
  { key: 'cpuSecondsPerGb', heading: 'CPU s/GB', show: (value) => value.toFixed(3) },
  { key: 'gbitPerSecond', heading: 'Gbit/s', show: (value) => value.toFixed(2) },
  { key: 'coreShare', heading: 'cores', show: (value) => value.toFixed(2), compared: false },
  { key: 'rssBytes', heading: 'RSS MB', show: (value) => (value / 1e6).toFixed(1) },
  { key: 'pssBytes', heading: 'PSS MB', show: (value) => (value / 1e6).toFixed(1) },
  { key: 'pssBytesPerConnection', heading: 'PSS KB/conn', show: (value) => (value / 1e3).toFixed(1) },
];
