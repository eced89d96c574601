import { must } from './process.ts';
import { REPOSITORY } from './topology.ts';

/** Before lab tests: the product and the programs that tests run as processes of their own, built from what stands here. */
export async function setup(): Promise<void> {
  await must(['scripts/build', 'tools'], { cwd: REPOSITORY, timeoutMs: 240_000 });
}
