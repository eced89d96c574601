/*
 * Policies as people read them: what comes out of the model, with units.
 */

/** Keys of the model whose numbers are milliseconds. */
const DURATIONS: ReadonlySet<string> = new Set([
  ...['connect', 'request', 'idle', 'stream', 'perTryTimeout', 'base', 'max', 'interval', 'atLeast'],
  ...['baseEjection', 'maxEjection', 'timeout', 'slowStart', 'duration'],
]);
const UNITS: readonly (readonly [unit: string, ms: number])[] = [
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
];

/** A value of the model with durations as text. */
export function withUnits(value: unknown, key = ''): unknown {
  if (typeof value === 'number' && DURATIONS.has(key)) return durationText(value);
  if (Array.isArray(value)) return value.map((one) => withUnits(one));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, withUnits(one, name)]));
}

/** As it is written in a document: `1500ms`, `30s`. */
function durationText(ms: number): string {
  for (const [unit, size] of UNITS) if (ms >= size && ms % size === 0) return `${ms / size}${unit}`;
  return ms === 0 ? '0s' : `${ms}ms`;
}
