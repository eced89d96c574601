import { z } from 'zod';

const DURATION = /^(\d+)(ms|s|m|h)$/;
const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const SIZE = /^(\d+)(B|KiB|MiB|GiB)$/;
const SIZE_UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

/** Node's timers fire at once for anything longer than 2^31-1 ms, so 576h (24 days) is the longest duration. */
const MOST_DURATION_MS = 576 * 3_600_000;
const MOST_SIZE_BYTES = 1024 * 1024 ** 3;

function read(form: RegExp, units: Readonly<Record<string, number>>, text: string): number {
  const [, amount, unit] = form.exec(text) ?? [];
  return Number(amount) * (units[unit ?? ''] ?? Number.NaN);
}

/**
 * A duration as people write it (`250ms`, `5s`, `10m`, `1h`); milliseconds in the program.
 * At least `least` ms: where 0 would mean a busy loop or a wait that never is, it is refused.
 */
export function duration(fallback: string, least = 1) {
  return durationText(least)
    .default(fallback)
    .transform((text) => read(DURATION, DURATION_UNITS, text));
}

/** As {@link duration}, where an absent one means something of its own. */
export function givenDuration(least = 1) {
  return durationText(least).transform((text) => read(DURATION, DURATION_UNITS, text));
}

function durationText(least: number) {
  return z
    .string()
    .regex(DURATION, { error: 'expected a duration such as 250ms, 5s, 10m or 1h', abort: true })
    .refine((text) => {
      const value = read(DURATION, DURATION_UNITS, text);
      return value >= least && value <= MOST_DURATION_MS;
    }, `expected a duration from ${least}ms to 576h`)
    .meta({ title: 'duration' });
}

/** A size as people write it (`64KiB`, `8MiB`); bytes in the program. At least `least` bytes, at most 1024GiB. */
export function size(fallback: string, least = 1) {
  return z
    .string()
    .regex(SIZE, { error: 'expected a size such as 512B, 64KiB, 8MiB or 1GiB', abort: true })
    .refine((text) => {
      const value = read(SIZE, SIZE_UNITS, text);
      return value >= least && value <= MOST_SIZE_BYTES;
    }, `expected a size from ${least}B to 1024GiB`)
    .meta({ title: 'size' })
    .default(fallback)
    .transform((text) => read(SIZE, SIZE_UNITS, text));
}
