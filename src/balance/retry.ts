import type { ErrorCode } from '../model/errors.ts';

/** How an attempt to reach an instance ended. */
export interface FailedAttempt {
  /** 1 for the first. */
  readonly attempt: number;
  readonly maxAttempts: number;
  /** False only when no byte of the caller can have reached the application. */
  readonly delivered: boolean;
  readonly code: ErrorCode;
  /** True while all that the caller has sent is still at hand. */
  readonly replayable: boolean;
}

/** Another instance would answer the same: the caller may not do it, or the fault is on this host. */
const FINAL: ReadonlySet<ErrorCode> = new Set(['denied', 'loop', 'configuration', 'system']);

/** Whether an opaque connection may be tried at another instance. Nothing else is safe to repeat. */
export function mayRetry(failed: FailedAttempt): boolean {
  return (
    !failed.delivered && failed.replayable && failed.attempt < failed.maxAttempts && !FINAL.has(failed.code)
  );
}
