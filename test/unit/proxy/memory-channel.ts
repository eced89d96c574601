import type { Channel, ChannelClose, ChannelHandler } from '../../../src/io/channel.ts';
import type { ErrorCode } from '../../../src/model/errors.ts';

const nobody: ChannelHandler = { data: () => {}, end: () => {}, drain: () => {}, close: () => {} };

/** A channel whose far end is the test itself: it sees what was written and says what arrives. */
export class MemoryChannel implements Channel {
  handler: ChannelHandler = nobody;
  readonly written: Buffer[] = [];
  paused = true;
  ended = false;
  resetWith: ErrorCode | 'none' | undefined;
  closed = false;
  accepted = false;
  refusal: { code: ErrorCode; detail: string } | undefined;
  /** While true, `write` answers false. */
  full = false;

  get pendingBytes(): number {
    return 0;
  }

  get text(): string {
    return Buffer.concat(this.written).toString();
  }

  write(bytes: Uint8Array): boolean {
    if (!this.ended && this.resetWith === undefined) this.written.push(Buffer.from(bytes));
    return !this.full;
  }

  end(): void {
    this.ended = true;
  }

  reset(code?: ErrorCode, detail?: string): void {
    if (this.closed || this.resetWith !== undefined) return;
    if (code !== undefined && !this.accepted) this.refusal = { code, detail: detail ?? '' };
    this.resetWith = code ?? 'none';
    queueMicrotask(() => this.close({ reason: 'local', delivered: this.written.length > 0 }));
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  accept(): void {
    this.accepted = true;
  }

  /** The far end's close, exactly once as the contract says. */
  close(why: ChannelClose): void {
    if (this.closed) return;
    this.closed = true;
    this.handler.close(why);
  }
}

/** Lets microtasks run. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
