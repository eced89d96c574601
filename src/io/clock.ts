import * as libc from './libc.ts';

/** Size of `struct timex` on 64-bit Linux (adjtimex(2)). */
const TIMEX_SIZE = 208;
/** The clock is not synchronised. */
const TIME_ERROR = 5;

/** Whether somebody (NTP, PTP) keeps the kernel's clock right; undefined when the kernel does not say. */
export function clockSynchronised(): boolean | undefined {
  const state = libc.adjtimex(new Uint8Array(TIMEX_SIZE)); // modes 0: asks and changes nothing
  return state < 0 ? undefined : state !== TIME_ERROR;
}
