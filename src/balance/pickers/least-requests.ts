import type { Candidate, Picker } from './picker.ts';
import { TwoChoices } from './two-choices.ts';

/** Of two at random the one with fewer active requests for its weight. */
export function leastRequests(candidates: readonly Candidate[], random: () => number): Picker {
  return new TwoChoices(
    candidates,
    random,
    (second, first) => second.load.active * first.weight < first.load.active * second.weight,
  );
}
