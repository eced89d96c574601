import { setTimeout as delay } from 'node:timers/promises';

/** First pause after a failure; doubles with each further one in a row, with jitter. */
const BASE_MS = 100;
const MAX_MS = 10_000;
/** Doubling stops here: whatever the bounds are, it has passed them. */
const MAX_DOUBLINGS = 16;

/** Milliseconds to wait after so many failures before this one; never nothing, so that no two agents go in step. */
export function retryPause(failuresBefore: number, longest: number = MAX_MS): number {
  const ceiling = Math.min(longest, BASE_MS * 2 ** Math.min(failuresBefore, MAX_DOUBLINGS));
  return ceiling * (0.1 + 0.9 * Math.random());
}

/** The longest pause after failures, where nothing else is said, in ms. */
export const LONGEST_RETRY_MS = MAX_MS;

/** About so long: what many agents do every so often they do not do together. */
export function jittered(milliseconds: number): number {
  return milliseconds * (0.9 + 0.2 * Math.random());
}

/** Waits so long, or until `signal`; never rejects. */
export async function waited(milliseconds: number, signal: AbortSignal): Promise<void> {
  await delay(milliseconds, undefined, { signal }).catch(() => undefined);
}

/** Waits so long, or until `sooner`; rejects when `closed` does. */
export async function pausedWhileOpen(
  milliseconds: number,
  closed: Promise<never>,
  sooner?: Promise<void>,
): Promise<void> {
  const timer = new AbortController();
  const next = delay(milliseconds, undefined, { signal: timer.signal });
  try {
    await Promise.race([next, closed, ...(sooner === undefined ? [] : [sooner])]);
  } finally {
    timer.abort();
    next.catch(() => undefined);
  }
}
