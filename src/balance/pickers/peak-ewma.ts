import { type Candidate, isEven, type Picker } from './picker.ts';
import { TwoChoices } from './two-choices.ts';

/**
 * Where weights differ, one must be cheaper by this factor to be preferred: delays of equal instances differ by chance
 * all the time, and the weights would decide nothing.
 */
const UNEVEN_MARGIN = 1.5;

/**
 * Of two at random the one that should answer sooner: its delay, of which peaks are remembered, times the requests
 * that it would have then. As in Finagle (`PeakEwma`) and Linkerd.
 */
export function peakEwma(candidates: readonly Candidate[], random: () => number, now: () => number): Picker {
  const mean = candidates.reduce((sum, { weight }) => sum + weight, 0) / candidates.length;
  const margin = isEven(candidates) ? 1 : UNEVEN_MARGIN;
  const costOf = ({ load, weight }: Candidate, time: number): number =>
    load.latency.cost(time, load.active === 0) * ((load.active * mean) / weight + 1);
  return new TwoChoices(candidates, random, (second, first) => {
    const time = now();
    return costOf(second, time) * margin < costOf(first, time);
  });
}
