import type { Metric } from './measure/sample.ts';

/** What mesh-node is to reach, as a ratio to the reference of the scenario. */
export interface Target {
  readonly scenario: string;
  readonly connections: number;
  readonly metric: Metric;
  readonly sense: 'at most' | 'at least';
  readonly ratio: number;
  /** The best of these is what it is compared with; absent: the reference of the scenario. */
  readonly rivals?: readonly string[];
}

/** The project's stated goals. They are information: noise of the machine never fails a run. */
export const targets: readonly Target[] = [
  { scenario: 'tcp', connections: 1, metric: 'cpuUsPerRequest', sense: 'at most', ratio: 1.1 },
  { scenario: 'tcp', connections: 32, metric: 'cpuUsPerRequest', sense: 'at most', ratio: 1.1 },
  { scenario: 'tcp', connections: 128, metric: 'cpuUsPerRequest', sense: 'at most', ratio: 1.1 },
  { scenario: 'connections', connections: 32, metric: 'cpuUsPerRequest', sense: 'at most', ratio: 1.2 },
  { scenario: 'bulk', connections: 1, metric: 'cpuSecondsPerGb', sense: 'at most', ratio: 0.55 },
  { scenario: 'tunnel', connections: 32, metric: 'cpuUsPerRequest', sense: 'at most', ratio: 0.65 },
  { scenario: 'tunnel', connections: 32, metric: 'requestsPerSecond', sense: 'at least', ratio: 1.4 },
  { scenario: 'tunnel', connections: 1, metric: 'p50Us', sense: 'at most', ratio: 1.3 },
  ...[1, 32, 128].map(
    (connections): Target => ({
      ...{ scenario: 'http', connections, metric: 'cpuUsPerRequest', sense: 'at most', ratio: 1.15 },
      rivals: ['haproxy', 'nginx'],
    }),
  ),
  { scenario: 'http-tunnel', connections: 32, metric: 'cpuUsPerRequest', sense: 'at most', ratio: 0.8 },
];
