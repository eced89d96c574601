import { cappedLabels, type MetricDefinition, metrics } from './definitions.ts';
import { MOST_LABEL_VALUES } from './label-caps.ts';

/** docs/metrics.md. */
export function metricsPage(): string {
  const capped = [...cappedLabels].map((label) => `\`${label}\``).join(' and ');
  return [
    '<!-- Made from src/telemetry/definitions.ts by `npm run docs:generate`; do not edit. -->',
    '',
    '# Metrics',
    '',
    'Served in the text format of Prometheus at `GET /metrics` of `telemetry.metricsListen`. Workers hand their counts over',
    'every `telemetry.flushInterval`; counters go on when a worker is replaced.',
    '',
    `Labels have values from closed sets. Only ${capped} come from outside: past ${MOST_LABEL_VALUES} distinct values, further`,
    'ones are counted as `other`. `service="none"` means that nobody knows the destination. `reason` is `done`,',
    '`client-reset` or an error code; `process` is `supervisor` or a worker.',
    '',
    '| metric | type | labels | meaning |',
    '|---|---|---|---|',
    ...(Object.values(metrics) as readonly MetricDefinition[]).map(
      ({ name, type, labels, help }) =>
        `| \`${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(', ')} | ${help} |`,
    ),
    '',
    '## Buckets',
    '',
    '| histogram | upper bounds in seconds |',
    '|---|---|',
    ...(Object.values(metrics) as readonly MetricDefinition[])
      .filter(({ type }) => type === 'histogram')
      .map(({ name, buckets }) => `| \`${name}\` | ${buckets.join(', ')} |`),
    '',
  ].join('\n');
}
