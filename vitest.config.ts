import { defineConfig } from 'vitest/config';
import { LongestFirst } from './test/support/longest-first.ts';
import { SecondAttempts } from './test/support/second-attempts.ts';

// The poller lives in a process's main loop, hence the forks pool everywhere. Lab tests have namespaces and addresses of
// their own for each file and wait more than they work: more at a time than the two cores that they are meant for, and not
// so many that promises of time are broken by the machine alone. They are given a second attempt, which is reported.
const LAB_WORKERS = 3;
const LAB_RETRIES = 1;
/** The others compute; of two cores Vitest would take one. */
const WORKERS = 2;

/** Where results are written for programs, by scripts/test. */
const results = process.env['MESH_TEST_RESULTS'];

export default defineConfig({
  test: {
    reporters: ['default', new SecondAttempts(), ...(results === undefined ? [] : ['json'])],
    ...(results === undefined ? {} : { outputFile: { json: results } }),
    pool: 'forks',
    maxWorkers: WORKERS,
    hookTimeout: 60_000,
    sequence: { sequencer: LongestFirst },
    projects: [
      { extends: true, test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 60_000 } },
      {
        extends: true,
        test: { name: 'integration', include: ['test/integration/**/*.test.ts'], testTimeout: 120_000 },
      },
      { extends: true, test: { name: 'fuzz', include: ['test/fuzz/**/*.test.ts'], testTimeout: 3_600_000 } },
      {
        extends: true,
        test: {
          name: 'lab',
          globalSetup: 'test/support/build.ts',
          include: ['test/lab/**/*.test.ts'],
          maxWorkers: LAB_WORKERS,
          retry: LAB_RETRIES,
          testTimeout: 240_000,
          hookTimeout: 240_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'interop',
          globalSetup: 'test/support/build.ts',
          include: ['test/interop/**/*.test.ts'],
          maxWorkers: LAB_WORKERS,
          retry: LAB_RETRIES,
          testTimeout: 240_000,
          hookTimeout: 240_000,
        },
      },
    ],
  },
});
