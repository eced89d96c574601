/** Milliseconds of CLOCK_MONOTONIC: the same clock in every process of the host, whenever each was started. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}
