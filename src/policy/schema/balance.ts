import { z } from 'zod';
import { duration } from '../../config/units.ts';
import { type Balance, balanceAlgorithms } from '../../model/policy.ts';
import { withShortForm } from './forms.ts';
import { sticky } from './match.ts';
import { count, wholeShare } from './scalars.ts';

/** Which instance gets a request or a connection. */
export const balance = withShortForm(
  z
    .strictObject({
      algorithm: z
        .enum(balanceAlgorithms)
        .exactOptional()
        .describe(
          'Absent: what the registry says of the service, else `balance.policy` of the configuration.',
        ),
      hash: sticky.exactOptional().describe('For `ring-hash`: same text, same instance.'),
      boundedLoad: z
        .int()
        .min(100)
        .max(10_000)
        .default(125)
        .describe('For `ring-hash`: most load of one instance, in percent of the mean.'),
      slowStart: duration('0s', 0).describe(
        'Time in which the share of an instance that is new, or back, grows to its weight; 0s: none.',
      ),
      overflowBelow: wholeShare(70).describe(
        'Local node → zone → others: the next ring is used as well when less than this share of the nearer one is usable.',
      ),
      minimumNear: count(1).describe('And when the nearer ones have fewer usable instances than this.'),
    })
    .superRefine(({ algorithm, hash }, context) => {
      const wrong = (key: string, message: string) =>
        context.addIssue({ code: 'custom', path: [key], message });
      if (algorithm === 'ring-hash' && hash === undefined) wrong('hash', 'expected a key for ring-hash');
      if (algorithm !== 'ring-hash' && hash !== undefined)
        wrong('hash', 'expected `algorithm: ring-hash` beside it');
    }) satisfies z.ZodType<Balance>,
  (value) => (typeof value === 'string' ? { algorithm: value } : (value ?? {})),
  { anyOf: [{ enum: balanceAlgorithms }, { type: 'null' }] },
  'algorithm, or map',
);
