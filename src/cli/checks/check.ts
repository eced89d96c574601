import type { StatusAnswer } from '../../admin/api.ts';
import type { CommandResult } from '../../capture/command.ts';
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

/** What a check looks at. */
export interface CheckSubject {
  readonly config: Config;
  readonly context: CliContext;
  readonly root: boolean;
  /** What the daemon of this host answers; undefined while none does. Asked once for all checks. */
  daemon(): Promise<StatusAnswer | undefined>;
  /** What the daemon answers to this; undefined when it does not, or refuses. */
  get<T>(path: string, parameters?: Readonly<Record<string, string>>): Promise<T | undefined>;
  /** Runs a program, bounded in time; never rejects. */
  run(program: string, args: readonly string[], input?: string): Promise<CommandResult>;
  /** A file of the kernel or the system; undefined when it cannot be read. Bounded in time. */
  read(path: string): Promise<string | undefined>;
}

/** One named check. */
export interface Check {
  readonly name: string;
  run(subject: CheckSubject): Promise<CheckResult>;
}

export const ok = (detail: string): CheckResult => ({ state: 'ok', detail });
export const warn = (detail: string, hint: string): CheckResult => ({ state: 'warn', detail, hint });
export const fail = (detail: string, hint: string): CheckResult => ({ state: 'fail', detail, hint });
export const skip = (detail: string): CheckResult => ({ state: 'skip', detail });

/** The first of several that is worst: a check that looks at several things tells the gravest. */
export function worst(results: readonly CheckResult[]): CheckResult | undefined {
  const grave = (state: CheckState): CheckResult | undefined => results.find((one) => one.state === state);
  return grave('fail') ?? grave('warn');
}

/** The first lines of a long list: `a, b, c and 4 more`. */
export function listed(items: readonly string[], most = 5): string {
  const rest = items.length - most;
  return rest > 0 ? `${items.slice(0, most).join(', ')} and ${rest} more` : items.join(', ');
}
