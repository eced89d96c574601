import type { ErrorCode, ErrorSource } from '../model/errors.ts';

/** How an attempt to reach an instance ended. */
interface FailedAttempt {
  /** 1 for the first. */
  readonly attempt: number;
  readonly maxAttempts: number;
  /** False only when no byte of the caller can have reached the application. */
  readonly delivered: boolean;
  readonly code: ErrorCode;
  /** `peer`: the other agent or the way to it; then another agent may answer otherwise. */
  readonly source: ErrorSource | undefined;
}

/** Another instance would answer the same: the caller may not do it, or the fault is on this host. */
const FINAL: ReadonlySet<ErrorCode> = new Set(['denied', 'loop', 'configuration', 'system']);

/** Whether an opaque connection may be tried at another instance. Nothing else is safe to repeat. */
export function mayRetry(failed: FailedAttempt): boolean {
  if (failed.delivered || failed.attempt >= failed.maxAttempts) return false;
  return failed.source === 'peer' || !FINAL.has(failed.code);
}
