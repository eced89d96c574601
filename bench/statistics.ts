/** Middle value; of an even number of values the mean of the two middle ones. NaN when there is none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** A median with the least and greatest value behind it. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** Median and extremes; undefined when there is no value. */
export function spread(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/**
 * Ratios round by round: the values of one round were measured next to each other, so what disturbs the machine for
 * longer than a round falls out. Rounds that lack one of the two, or where one is zero, are left out.
 */
export function pairedRatios(
  values: readonly (number | undefined)[],
  reference: readonly (number | undefined)[],
): number[] {
  const ratios: number[] = [];
  for (const [round, value] of values.entries()) {
    const base = reference[round];
    if (value !== undefined && base !== undefined && value > 0 && base > 0) ratios.push(value / base);
  }
  return ratios;
}
