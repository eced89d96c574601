import { z } from 'zod';
import { path } from '../scalars.ts';

/** What operators say of services at run time. */
export const policies = z
  .strictObject({
    directory: path('/etc/mesh-node/policies.d').describe(
      'Directory of YAML files with policies (docs/policies.md), watched.',
    ),
  })
  .prefault({})
  .describe('Routes, resilience, balancing, limits and access, by service.');
