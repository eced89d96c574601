import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take longest, by the end of their names; what is begun late lets everything else wait for it. */
const LONG: readonly string[] = [
  'lab/upgrade',
  'lab/silent-agent',
  'lab/failure-matrix',
  'lab/bulk',
  'lab/systemd',
  'lab/processes',
  'lab/ping',
  'lab/capture/interception',
  'lab/long-line',
  'interop/programs',
  'lab/guard',
  'lab/slow-reader',
  'lab/daemon/lifecycle',
  'lab/check',
  'integration/registry/document-thread',
  'integration/io/connections',
];

/** Begins with the files that take longest, which a clean clone could not know by itself. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = LONG.findIndex((name) => moduleId.endsWith(`${name}.test.ts`));
      return at < 0 ? LONG.length : at;
    };
    return (await super.sort(files)).sort((one, other) => rank(one) - rank(other));
  }
}
