import { performance } from 'node:perf_hooks';

/** Calls in a batch: a few milliseconds. */
const CALLS = 2000;
const BATCHES = 200;
/** Batches for the compiler. */
const WARM_UP = 20;

/**
 * Best and median time of one call, in µs, over many short batches: some of them are not interrupted by whatever else
 * the machine does, so the best is what the code costs.
 */
export function measure(name: string, once: () => void, calls = CALLS): void {
  const times: number[] = [];
  for (let batch = -WARM_UP; batch < BATCHES; batch++) {
    const start = performance.now();
    for (let n = 0; n < calls; n++) once();
    if (batch >= 0) times.push(((performance.now() - start) * 1000) / calls);
  }
  times.sort((a, b) => a - b);
  const [best, median] = [times[0]!, times[BATCHES >> 1]!];
  process.stdout.write(`${name.padEnd(44)} best ${best.toFixed(2)} µs, median ${median.toFixed(2)} µs\n`);
}
