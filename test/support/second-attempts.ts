import type { Reporter, TestCase, TestModule } from 'vitest/node';

/**
 * Says which tests passed only when they were run once more. Lab tests keep promises of time on whatever machine they
 * run: a second look tells a machine that was busy for a moment from a promise that is broken, and nobody overlooks it.
 */
export class SecondAttempts implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const flaky: TestCase[] = [];
    for (const { children } of modules) {
      for (const test of children.allTests('passed')) if (test.diagnostic()?.flaky === true) flaky.push(test);
    }
    for (const test of flaky)
      console.log(`passed only at the second attempt: ${test.module.relativeModuleId} > ${test.fullName}`);
  }
}
