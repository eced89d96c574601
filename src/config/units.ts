import { z } from 'zod';

const DURATION = /^(\d+)(ms|s|m|h)$/;
const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const SIZE = /^(\d+)(B|KiB|MiB|GiB)$/;
const SIZE_UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

/** A duration as people write it (`250ms`, `5s`, `10m`, `1h`); milliseconds in the program. */
export function duration(fallback: string) {
  return z
    .string()
    .regex(DURATION, 'expected a duration such as 250ms, 5s, 10m or 1h')
    .default(fallback)
    .transform((text) => {
      const [, count, unit] = DURATION.exec(text)!;
      return Number(count) * DURATION_UNITS[unit!]!;
    });
}

/** A size as people write it (`64KiB`, `8MiB`); bytes in the program. */
export function size(fallback: string) {
  return z
    .string()
    .regex(SIZE, 'expected a size such as 512B, 64KiB, 8MiB or 1GiB')
    .default(fallback)
    .transform((text) => {
      const [, count, unit] = SIZE.exec(text)!;
      return Number(count) * SIZE_UNITS[unit!]!;
    });
}
