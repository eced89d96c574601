import {
  type GoawayBody,
  HELLO_SIZE,
  type Hello,
  REASON_SIZE,
  type ResetBody,
  writeGoaway,
  writeHello,
  writeReset,
} from './frame.ts';
import type { Outbox } from './outbox.ts';

/** Frames of a session itself. Each returns false when there is no room for it now. */

export function sendHello(outbox: Outbox, hello: Hello): boolean {
  const at = outbox.begin(HELLO_SIZE);
  if (at < 0) return false;
  outbox.commit(writeHello(outbox.buffer, at, hello));
  return true;
}

export function sendGoaway(outbox: Outbox, goaway: GoawayBody): boolean {
  const at = outbox.begin(REASON_SIZE);
  if (at < 0) return false;
  outbox.commit(writeGoaway(outbox.buffer, at, goaway));
  return true;
}

export function sendReset(outbox: Outbox, stream: number, reset: ResetBody): boolean {
  const at = outbox.begin(REASON_SIZE);
  if (at < 0) return false;
  outbox.commit(writeReset(outbox.buffer, at, stream, reset));
  return true;
}
