import { must } from './process.ts';
import { REPOSITORY } from './topology.ts';

/** Before lab tests: the product and the programs that tests run as processes of their own, built from what stands here. */
export async function setup(): Promise<void> {
  await Promise.all([
    must(['scripts/build'], { cwd: REPOSITORY, timeoutMs: 120_000 }),
    must(['npx', 'tsc', '-p', 'tsconfig.tools.json'], { cwd: REPOSITORY, timeoutMs: 120_000 }),
  ]);
}
