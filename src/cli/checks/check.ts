import type { Config } from '../../config/schema.ts';
import type { CliContext } from '../context.ts';

/** `warn` is worth knowing and does not fail the command. `skip`: it could not be looked at, and why. */
export type CheckState = 'ok' | 'warn' | 'fail' | 'skip';

/** What one check found. */
export interface CheckResult {
  readonly state: CheckState;
  readonly detail: string;
  /** What to do about it. */
  readonly hint?: string;
}

/** One named check. */
export interface Check {
  readonly name: string;
  run(config: Config, context: CliContext): Promise<CheckResult>;
}

export const ok = (detail: string): CheckResult => ({ state: 'ok', detail });
export const warn = (detail: string, hint: string): CheckResult => ({ state: 'warn', detail, hint });
export const fail = (detail: string, hint: string): CheckResult => ({ state: 'fail', detail, hint });
export const skip = (detail: string): CheckResult => ({ state: 'skip', detail });
