import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import type { ErrorCode } from '../model/errors.ts';
import { ByteQueue } from './byte-queue.ts';
import {
  CREDIT_SIZE,
  FRAME_HEADER,
  frameType,
  protocolError,
  REASON_SIZE,
  type ResetBody,
  writeCredit,
  writeHeader,
  writeReset,
} from './frame.ts';
import type { Outbox, OutboxClient } from './outbox.ts';
import { OPEN_CREDIT, ReceiveWindow, type WindowBudget } from './window.ts';

/** `write` returns false from here on. */
const HIGH_WATER = 64 * 1024;
/** Bytes that a stream may put into one message past the limits for bulk data. */
const LIGHT = 4096;
/** Most credit that a peer may heap up. */
const MAX_CREDIT = 2 ** 31;

/** What a stream needs of its session. */
export interface StreamLink {
  readonly outbox: Outbox;
  readonly windows: WindowBudget;
  readonly initialWindow: number;
  readonly maxWindow: number;
  /** Bytes that may be sent before ACCEPT, and by the callee before WINDOW. */
  readonly peerOpenCredit: number;
  /** Least round trip in ms, once it is known. */
  readonly minRtt: number | undefined;
  /** A WINDOW leaves now: a fresh round trip may be wanted. */
  windowSent(now: number): void;
  /** The owner accepted an offered stream. */
  taken(stream: TunnelStream): void;
  /** The stream is over. */
  forget(stream: TunnelStream): void;
}

const closedByNobody: ChannelHandler = { data() {}, end() {}, drain() {}, close() {} };

/** `queued`: no session yet. `opening`: OPEN sent. `offered`: OPEN received, not yet accepted. */
export type StreamState = 'queued' | 'opening' | 'offered' | 'open' | 'closed';

/** One byte stream in a tunnel. Made by `TunnelPool.open`, or handed to the owner of an acceptor. */
export class TunnelStream implements Channel, OutboxClient {
  handler: ChannelHandler = closedByNobody;
  readonly #defer: (task: () => void) => void;
  #state: StreamState;
  #link: StreamLink | undefined;
  #id = 0;
  /** Body of the OPEN still to be sent. */
  #open: Buffer | undefined;

  readonly #tx = new ByteQueue();
  #txCredit = 0;
  #turn = -1;
  #turnBytes = 0;
  #endAsked = false;
  #endSent = false;
  #needDrain = false;
  #reset: ResetBody | undefined;
  #acceptDue = false;

  readonly #rx = new ByteQueue();
  #window: ReceiveWindow | undefined;
  #windowDue = false;
  #extraCredit = 0;
  #flowing = false;
  #pouring = false;
  #remoteEnded = false;
  #endDelivered = false;
  /** The owner was handed bytes of the peer. */
  #handedOut = false;
  #sent = 0;
  #received = 0;
  /** When the peer offered it, in ms of the monotonic clock. */
  readonly offeredAt: number;

  private constructor(state: StreamState, defer: (task: () => void) => void, offeredAt = 0) {
    this.#state = state;
    this.#defer = defer;
    this.offeredAt = offeredAt;
  }

  /** A stream that waits for its session; `open` is the body of its OPEN. */
  static outgoing(open: Buffer, defer: (task: () => void) => void): TunnelStream {
    const stream = new TunnelStream('queued', defer);
    stream.#open = open;
    return stream;
  }

  /** A stream that the peer opened. */
  static incoming(
    link: StreamLink,
    id: number,
    defer: (task: () => void) => void,
    now: number,
  ): TunnelStream {
    const stream = new TunnelStream('offered', defer, now);
    stream.#bind(link, id);
    return stream;
  }

  get id(): number {
    return this.#id;
  }

  get state(): StreamState {
    return this.#state;
  }

  get pendingBytes(): number {
    return this.#tx.length;
  }

  /** Bytes of data that left in frames. */
  get bytesSent(): number {
    return this.#sent;
  }

  /** Bytes of data that arrived. */
  get bytesReceived(): number {
    return this.#received;
  }

  /** Size of the receive window, for tests and status. */
  get windowSize(): number {
    return this.#window?.size ?? OPEN_CREDIT;
  }

  /** Gives a queued stream its session: OPEN and what was written meanwhile go out. */
  attach(link: StreamLink, id: number): void {
    this.#state = 'opening';
    this.#bind(link, id);
    link.outbox.wait(this);
  }

  #bind(link: StreamLink, id: number): void {
    this.#link = link;
    this.#id = id;
    this.#txCredit = link.peerOpenCredit;
    this.#window = new ReceiveWindow(link.windows, link.maxWindow);
  }

  /** Callee: takes the stream; the peer sees `open`, and from now on its bytes may be delivered. */
  accept(): void {
    if (this.#state !== 'offered') return;
    this.#state = 'open';
    this.#acceptDue = true;
    this.#link!.taken(this);
    this.#link!.outbox.wait(this);
  }

  write(bytes: Uint8Array): boolean {
    if (this.#state === 'closed' || this.#endAsked || bytes.length === 0) return true;
    let taken = 0;
    if (this.#tx.length === 0 && this.#link !== undefined && this.#txCredit > 0 && this.#mayWriteThrough()) {
      taken = this.#writeThrough(this.#link.outbox, bytes);
    }
    if (taken < bytes.length) {
      this.#tx.push(bytes, taken);
      if (this.#txCredit > 0) this.#link?.outbox.wait(this);
    }
    if (this.#tx.length < HIGH_WATER) return true;
    this.#needDrain = true;
    return false;
  }

  /** Frames that must precede data are out. */
  #mayWriteThrough(): boolean {
    return this.#open === undefined && !this.#acceptDue;
  }

  #writeThrough(outbox: Outbox, bytes: Uint8Array): number {
    if (this.#turn !== outbox.turn) {
      this.#turn = outbox.turn;
      this.#turnBytes = 0;
    }
    const light = this.#turnBytes + bytes.length <= LIGHT;
    if (!light && outbox.contended) return 0;
    const count = outbox.data(this.#id, bytes, Math.min(bytes.length, this.#txCredit), light);
    this.#txCredit -= count;
    this.#turnBytes += count;
    this.#sent += count;
    return count;
  }

  end(): void {
    if (this.#state === 'closed' || this.#endAsked) return;
    this.#endAsked = true;
    this.#link?.outbox.wait(this);
  }

  /** `delivered`: whether bytes of the peer reached the application; by default, whether the owner was handed any. */
  reset(code: ErrorCode = 'reset', detail = '', delivered: boolean = this.#handedOut): void {
    if (this.#state === 'closed') return;
    const why: ChannelClose = { reason: 'local', delivered: this.#sent > 0, detail };
    // An OPEN that never left needs no RESET: the peer does not know the stream.
    if (this.#link !== undefined && this.#open === undefined) {
      this.#reset = { code, delivered: this.#state !== 'offered' && delivered, detail };
      this.#link.outbox.wait(this);
    }
    this.#finish();
    this.#defer(() => this.handler.close(why));
  }

  pause(): void {
    this.#flowing = false;
  }

  resume(): void {
    if (this.#flowing || this.#state === 'closed') return;
    this.#flowing = true;
    if (this.#pouring || (this.#rx.length === 0 && !this.#remoteEnded)) return;
    this.#pouring = true;
    this.#defer(this.#pour);
  }

  readonly #pour = (): void => {
    this.#pouring = false;
    while (this.#flowing && this.#rx.length > 0) {
      const bytes = this.#rx.peek(HIGH_WATER)!;
      this.#deliver(bytes);
      // After the owner saw them: a chunk that was let go may be written to by others.
      this.#rx.skip(bytes.length);
    }
    if (this.#flowing && this.#remoteEnded) this.#deliverEnd();
  };

  #deliver(bytes: Uint8Array): void {
    this.#handedOut = true;
    this.handler.data(bytes);
    if (this.#state !== 'closed' && !this.#remoteEnded && this.#window!.consumed(bytes.length)) {
      this.#windowDue = true;
      this.#link!.outbox.wait(this);
    }
  }

  #deliverEnd(): void {
    if (this.#endDelivered || this.#state === 'closed') return;
    this.#endDelivered = true;
    this.handler.end();
    this.#closeWhenDone();
  }

  #closeWhenDone(): void {
    if (this.#state === 'closed' || !this.#endSent || !this.#endDelivered) return;
    this.#finish();
    this.#defer(() => this.handler.close({ reason: 'done', delivered: true }));
  }

  /** Lets go of everything held; `close` is the caller's to say. */
  #finish(): void {
    this.#state = 'closed';
    this.#flowing = false;
    this.#tx.clear();
    this.#rx.clear();
    this.#window?.release();
    this.#link?.forget(this);
  }

  /** Sends what is owed, in this order: OPEN, ACCEPT, WINDOW, data, END; or RESET. Called by the outbox. */
  serve(quantum: number): boolean {
    const link = this.#link!;
    const { outbox } = link;
    if (this.#reset !== undefined) return this.#sendReset(outbox, this.#reset);
    if (this.#state === 'closed') return false;
    if (this.#open !== undefined && !this.#sendOpen(outbox, this.#open)) return true;
    if (this.#acceptDue && !this.#sendAccept(link)) return true;
    if ((this.#windowDue || this.#extraCredit > 0) && !this.#sendWindow(link)) return true;
    let left = quantum;
    while (this.#tx.length > 0 && this.#txCredit > 0) {
      if (left <= 0) return true;
      const run = this.#tx.peek(Math.min(left, this.#txCredit))!;
      const count = outbox.data(this.#id, run, run.length, false);
      if (count === 0) return true;
      this.#tx.skip(count);
      this.#txCredit -= count;
      this.#sent += count;
      left -= count;
    }
    if (this.#tx.length > 0) return false;
    if (this.#needDrain) {
      this.#needDrain = false;
      this.handler.drain();
    }
    // The owner may have written more, or reset, while it drained.
    if (this.state === 'closed' || this.#tx.length > 0) return false;
    return this.#endAsked && !this.#endSent && !this.#sendEnd(outbox);
  }

  #sendOpen(outbox: Outbox, open: Buffer): boolean {
    const at = outbox.begin(FRAME_HEADER + open.length);
    if (at < 0) return false;
    const body = writeHeader(outbox.buffer, at, frameType.open, this.#id, open.length);
    outbox.buffer.set(open, body);
    outbox.commit(body + open.length);
    this.#open = undefined;
    return true;
  }

  #sendAccept(link: StreamLink): boolean {
    const at = link.outbox.begin(CREDIT_SIZE);
    if (at < 0) return false;
    const credit = this.#window!.widen(link.initialWindow);
    link.outbox.commit(writeCredit(link.outbox.buffer, at, frameType.accept, this.#id, credit));
    this.#acceptDue = false;
    return true;
  }

  #sendWindow(link: StreamLink): boolean {
    const at = link.outbox.begin(CREDIT_SIZE);
    if (at < 0) return false;
    const now = performance.now();
    let credit = this.#extraCredit;
    this.#extraCredit = 0;
    if (this.#windowDue) credit += this.#window!.grant(now, link.minRtt);
    this.#windowDue = false;
    link.outbox.commit(writeCredit(link.outbox.buffer, at, frameType.window, this.#id, credit));
    link.windowSent(now);
    return true;
  }

  #sendEnd(outbox: Outbox): boolean {
    const at = outbox.begin(FRAME_HEADER);
    if (at < 0) return false;
    outbox.commit(writeHeader(outbox.buffer, at, frameType.end, this.#id, 0));
    this.#endSent = true;
    this.#closeWhenDone();
    return true;
  }

  #sendReset(outbox: Outbox, reset: ResetBody): boolean {
    const at = outbox.begin(REASON_SIZE);
    if (at < 0) return true;
    outbox.commit(writeReset(outbox.buffer, at, this.#id, reset));
    this.#reset = undefined;
    return false;
  }

  /** ACCEPT arrived. */
  accepted(credit: number): void {
    if (this.#state !== 'opening') throw protocolError('ACCEPT for a stream that is not opening');
    this.#state = 'open';
    this.#extraCredit = this.#window!.widen(this.#link!.initialWindow);
    this.#link!.outbox.wait(this);
    this.credited(credit);
    this.handler.open?.();
  }

  /** WINDOW arrived. */
  credited(credit: number): void {
    this.#txCredit += credit;
    if (this.#txCredit > MAX_CREDIT) throw protocolError('credit over 2^31');
    if (this.#tx.length > 0) this.#link!.outbox.wait(this);
  }

  /** DATA arrived. */
  receive(bytes: Uint8Array): void {
    if (this.#remoteEnded) throw protocolError('DATA after END');
    if (!this.#window!.received(bytes.length)) throw protocolError('DATA beyond credit');
    this.#received += bytes.length;
    if (this.#flowing && this.#rx.length === 0) this.#deliver(bytes);
    else this.#rx.push(bytes);
  }

  /** END arrived. */
  ended(): void {
    if (this.#remoteEnded) throw protocolError('END after END');
    this.#remoteEnded = true;
    if (this.#flowing && this.#rx.length === 0) this.#deliverEnd();
  }

  /** RESET arrived (`peer` or `callee`, by its code), or the session or its dial failed (`peer`). */
  fail(reason: ErrorCode, delivered: boolean, detail: string, source: 'peer' | 'callee' = 'peer'): void {
    if (this.#state === 'closed') return;
    this.#finish();
    this.handler.close({ reason, delivered, source, detail });
  }
}
