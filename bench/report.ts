import { type Metric, metrics, type Sample } from './measure/sample.ts';
import type { Series } from './runner.ts';
import { median, pairedRatios, type Spread, spread } from './statistics.ts';
import { type Target, targets } from './targets.ts';

/** The subject that the targets speak of. */
const OURS = 'mesh-node';

/** One row of the table, and one element of the JSON array: the medians of the rounds, with what lies behind them. */
export interface Result extends Sample {
  readonly scenario: string;
  readonly subject: string;
  readonly connections: number;
  readonly rounds: number;
  readonly reference: string;
  /** For each metric: this subject's value by the reference's, taken round by round. */
  readonly ratioToReference: Partial<Record<Metric, Spread>>;
  readonly samples: readonly Sample[];
}

const column = (series: Series, key: Metric): (number | undefined)[] =>
  series.samples.map((sample) => sample[key]);

const isPresent = (value: number | undefined): value is number => value !== undefined;

/** Sums up series; those of the reference subject of each scenario must be among them to get ratios. */
export function summarize(all: readonly Series[]): Result[] {
  // A subject without processes has no memory to speak of: it appears only where there is something to see.
  const measured = all.filter((series) => metrics.some(({ key }) => column(series, key).some(isPresent)));
  return measured.map((series) => {
    const { scenario, subject, connections, samples } = series;
    const reference = all.find(
      (other) =>
        other.scenario === scenario &&
        other.connections === connections &&
        other.subject === scenario.reference,
    );
    const values: Partial<Record<Metric, number>> = {};
    const ratioToReference: Partial<Record<Metric, Spread>> = {};
    for (const { key, compared } of metrics) {
      const present = column(series, key).filter(isPresent);
      if (present.length > 0) values[key] = median(present);
      if (reference === undefined || subject === scenario.reference || compared === false) continue;
      const ratio = spread(pairedRatios(column(series, key), column(reference, key)));
      if (ratio !== undefined) ratioToReference[key] = ratio;
    }
    return {
      scenario: scenario.name,
      subject,
      connections,
      ...values,
      rounds: samples.length,
      reference: scenario.reference,
      ratioToReference,
      samples,
    };
  });
}

/** Lines of text in columns; numbers to the right. */
function columns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, at) => Math.max(...rows.map((row) => row[at]!.length)));
  const line = (row: readonly string[]): string =>
    row.map((cell, at) => (at === 0 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!))).join('  ');
  return rows.map((row) => line(row).trimEnd()).join('\n');
}

/** A ratio with its spread; the spread of a single round says nothing and is left out. */
function times(ratio: Spread | undefined): string {
  if (ratio === undefined) return '';
  const range = ratio.min === ratio.max ? '' : ` (${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)})`;
  return `${ratio.median.toFixed(2)}×${range}`;
}

/** The table of one scenario: each metric that it measured, with the ratio to the reference and its spread. */
export function table(results: readonly Result[]): string {
  const shown = metrics.filter(({ key }) => results.some((result) => result[key] !== undefined));
  const rows = results.map((result) => {
    const cells = shown.flatMap(({ key, show, compared }) => {
      const value = result[key];
      const cell = value === undefined ? '–' : show(value);
      return compared === false ? [cell] : [cell, times(result.ratioToReference[key])];
    });
    return [result.subject, String(result.connections), ...cells];
  });
  const ratioHeading = `× ${results[0]?.reference ?? ''}`;
  const headings = shown.flatMap(({ heading, compared }) =>
    compared === false ? [heading] : [heading, ratioHeading],
  );
  const heading = ['subject', 'conns', ...headings];
  return columns([heading, ...rows]);
}

function verdict(target: Target, ratio: Spread): string {
  const reached = target.sense === 'at most' ? ratio.median <= target.ratio : ratio.median >= target.ratio;
  return reached ? 'reached' : 'MISSED';
}

/** The one of the rivals that did best, with our ratio to it. */
function comparison(
  results: readonly Result[],
  ours: Result,
  { metric, sense, rivals }: Target,
): { readonly name: string; readonly ratio: Spread } | undefined {
  const names = rivals ?? [ours.reference];
  const [best] = results
    .filter(
      ({ subject, scenario, connections, [metric]: value }) =>
        names.includes(subject) &&
        scenario === ours.scenario &&
        connections === ours.connections &&
        value !== undefined,
    )
    .sort((a, b) => (sense === 'at most' ? a[metric]! - b[metric]! : b[metric]! - a[metric]!));
  if (best === undefined) return undefined;
  const values = ({ samples }: Result) => samples.map((sample) => sample[metric]);
  const ratio = spread(pairedRatios(values(ours), values(best)));
  return ratio === undefined ? undefined : { name: best.subject, ratio };
}

/** What of the project's goals was reached, as far as it was measured; undefined when nothing was. */
export function verdicts(results: readonly Result[]): string | undefined {
  const rows = targets.flatMap((target) => {
    const result = results.find(
      (each) =>
        each.subject === OURS && each.scenario === target.scenario && each.connections === target.connections,
    );
    const compared = result === undefined ? undefined : comparison(results, result, target);
    if (compared === undefined) return [];
    const { name, ratio } = compared;
    const goal = `${target.sense} ${target.ratio.toFixed(2)} × ${name}`;
    return [
      [
        target.scenario,
        String(target.connections),
        target.metric,
        goal,
        times(ratio),
        verdict(target, ratio),
      ],
    ];
  });
  if (rows.length === 0) return undefined;
  return columns([['scenario', 'conns', 'metric', 'goal', 'measured', 'verdict'], ...rows]);
}
