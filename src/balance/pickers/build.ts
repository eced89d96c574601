import type { BalanceAlgorithm } from '../../model/policy.ts';
import type { HashRing } from './hash-ring.ts';
import { LeastConnections } from './least-connections.ts';
import { leastRequests } from './least-requests.ts';
import { peakEwma } from './peak-ewma.ts';
import type { Candidate, Picker } from './picker.ts';
import { RingHash } from './ring-hash.ts';
import { roundRobin } from './round-robin.ts';

/** How a picker is to be built. */
export interface PickerOptions {
  readonly algorithm: BalanceAlgorithm;
  /** For `ring-hash`: percent of the mean. */
  readonly boundedLoad: number;
  /** For `ring-hash`: the ring on which the candidates stand, and others that are not to be used. */
  readonly ring: () => HashRing;
  readonly random: () => number;
  readonly now: () => number;
}

/** A picker over these, of which there is one at least. */
export function buildPicker(candidates: readonly Candidate[], options: PickerOptions): Picker {
  const { random } = options;
  switch (options.algorithm) {
    case 'round-robin':
      return roundRobin(candidates, random);
    case 'least-connections':
      return new LeastConnections(candidates, random);
    case 'least-requests':
      return leastRequests(candidates, random);
    case 'peak-ewma':
      return peakEwma(candidates, random, options.now);
    case 'ring-hash':
      return new RingHash(options.ring(), candidates, options.boundedLoad, random);
  }
}
