import { type Channel, type ChannelClose, type ChannelHandler, noHandler } from '../io/channel.ts';
import type { ErrorCode } from '../model/errors.ts';
import type { TunnelSettings } from './context.ts';
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
import { ReceiveHalf } from './receive-half.ts';
import { SendHalf } from './send-half.ts';
import { OPEN_CREDIT, ReceiveWindow, type WindowBudget } from './window.ts';

/** Who knows for how long the other end has owed a sign of life. */
export interface SilenceSource {
  /** Milliseconds; 0 while nothing is owed. */
  readonly silence: number;
}

/** What a stream needs of its session. */
export interface StreamLink extends SilenceSource {
  readonly outbox: Outbox;
  readonly windows: WindowBudget;
  readonly settings: Pick<TunnelSettings, 'initialWindow' | 'maxWindow'>;
  /** Bytes that may be sent before ACCEPT, and by the callee before WINDOW. */
  readonly peerOpenCredit: number;
  /** Nothing came for a while: the peer may be gone without our knowing. */
  readonly quiet: boolean;
  /** Least round trip in ms, once it is known. */
  readonly minRtt: number | undefined;
  /** A WINDOW leaves now: a fresh round trip may be wanted. */
  windowSent(now: number): void;
  /** A stream waits too long: without a sign of life all that wait for their ACCEPT are given up. */
  doubt(): void;
  /** The owner accepted an offered stream. */
  taken(stream: TunnelStream): void;
  /** The stream is over. */
  forget(stream: TunnelStream): void;
}

/** A session that owes a sign of life for this long gets no new stream while another may be had, in ms. */
export const DOUBT_AFTER = 500;

/** `queued`: no session yet. `opening`: OPEN sent. `offered`: OPEN received, not yet accepted. */
export type StreamState = 'queued' | 'opening' | 'offered' | 'open' | 'closed';

/** One byte stream in a tunnel. Made by `TunnelPool.open`, or handed to the owner of an acceptor. */
export class TunnelStream implements Channel, OutboxClient {
  handler: ChannelHandler = noHandler;
  readonly #defer: (task: () => void) => void;
  #state: StreamState;
  #link: StreamLink | undefined;
  /** Whose dial it waits for until it has a session. */
  readonly #dial: SilenceSource | undefined;
  #id = 0;
  /** Body of the OPEN still to be sent. */
  #open: Buffer | undefined;

  readonly #send = new SendHalf();
  /** Credit before ACCEPT that is not used, because the tunnel was silent. */
  #heldCredit = 0;
  readonly #receive: ReceiveHalf;
  #endAsked = false;
  #endSent = false;
  #reset: ResetBody | undefined;
  #acceptDue = false;
  #windowDue = false;
  #extraCredit = 0;
  /** When the peer offered it, in ms of the monotonic clock. */
  readonly offeredAt: number;

  private constructor(
    state: StreamState,
    defer: (task: () => void) => void,
    dial: SilenceSource | undefined,
    offeredAt: number,
  ) {
    this.#state = state;
    this.#defer = defer;
    this.#dial = dial;
    this.#receive = new ReceiveHalf(this, defer);
    this.offeredAt = offeredAt;
  }

  /** A stream that waits for its session; `open` is the body of its OPEN, `dial` what is to make that session. */
  static outgoing(open: Buffer, defer: (task: () => void) => void, dial: SilenceSource): TunnelStream {
    const stream = new TunnelStream('queued', defer, dial, 0);
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
    const stream = new TunnelStream('offered', defer, undefined, now);
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
    return this.#send.pending;
  }

  /** Bytes of data that left in frames. */
  get bytesSent(): number {
    return this.#send.sent;
  }

  /** Bytes of data that arrived. */
  get bytesReceived(): number {
    return this.#receive.received;
  }

  /** For how long, in ms, its tunnel has owed a sign of life, or the dial for it was not answered; 0 while all is well. */
  get silence(): number {
    return this.#link?.silence ?? this.#dial?.silence ?? 0;
  }

  /** It waits for its ACCEPT in a session that is in doubt. */
  get doubtful(): boolean {
    return this.#state === 'opening' && this.silence >= DOUBT_AFTER;
  }

  /** Size of the receive window, for tests and status. */
  get windowSize(): number {
    return this.#receive.window?.size ?? OPEN_CREDIT;
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
    // Bytes that leave now can be neither repeated nor taken elsewhere. On a tunnel that was silent they wait for the
    // ACCEPT: that costs one round trip after a pause, and spares callers of an agent that is gone a reset.
    if (this.#state === 'opening' && link.quiet) this.#heldCredit = link.peerOpenCredit;
    else this.#send.credit(link.peerOpenCredit);
    this.#receive.window = new ReceiveWindow(link.windows, link.settings.maxWindow);
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
    const outbox = this.#link?.outbox;
    // OPEN and ACCEPT go before data.
    const through = this.#open === undefined && !this.#acceptDue ? outbox : undefined;
    this.#send.write(bytes, through, this.#id);
    if (this.#send.ready) outbox?.wait(this);
    return this.#send.hasRoom();
  }

  end(): void {
    if (this.#state === 'closed' || this.#endAsked) return;
    this.#endAsked = true;
    this.#link?.outbox.wait(this);
  }

  /** `delivered`: whether bytes of the peer reached the application; by default, whether the owner was handed any. */
  reset(code: ErrorCode = 'reset', detail = '', delivered: boolean = this.#receive.handedOut): void {
    if (this.#state === 'closed') return;
    const why: ChannelClose = { reason: 'local', delivered: this.#send.sent > 0, detail };
    this.#abort({ code, delivered: this.#state !== 'offered' && delivered, detail });
    this.#defer(() => this.handler.close(why));
  }

  #abort(reset: ResetBody): void {
    // An OPEN that never left needs no RESET: the peer does not know the stream.
    if (this.#link !== undefined && this.#open === undefined) {
      this.#reset = reset;
      this.#link.outbox.wait(this);
    }
    this.#finish();
  }

  /** The owner has waited too long for the ACCEPT: the tunnel has to prove that it lives. */
  doubt(): void {
    if (this.#state === 'opening') this.#link?.doubt();
  }

  /** Its session does not wait for the ACCEPT any longer; the peer is told, should it live after all. */
  giveUp(detail: string): void {
    if (this.#state !== 'opening') return;
    const delivered = this.#send.sent > 0;
    this.#abort({ code: 'timeout', delivered: false, detail });
    this.handler.close({ reason: 'tunnel-lost', delivered, source: 'peer', detail });
  }

  pause(): void {
    this.#receive.pause();
  }

  resume(): void {
    this.#receive.resume();
  }

  /** @internal for its receiving half */
  windowDue(): void {
    this.#windowDue = true;
    this.#link!.outbox.wait(this);
  }

  /** @internal for its receiving half */
  endDelivered(): void {
    this.#closeWhenDone();
  }

  #closeWhenDone(): void {
    if (this.#state === 'closed' || !this.#endSent || !this.#receive.done) return;
    this.#finish();
    this.#defer(() => this.handler.close({ reason: 'done', delivered: true }));
  }

  /** Lets go of everything held; `close` is the caller's to say. */
  #finish(): void {
    this.#state = 'closed';
    this.#send.clear();
    this.#receive.close();
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
    if (!this.#send.serve(outbox, this.#id, quantum)) return true;
    if (this.#send.takeDrain()) this.handler.drain();
    // More may wait for credit, and the owner may have written more, or reset, while it drained.
    if (this.state === 'closed' || this.#send.pending > 0) return false;
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
    const credit = this.#receive.window!.widen(link.settings.initialWindow);
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
    if (this.#windowDue) credit += this.#receive.window!.grant(now, link.minRtt);
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
    this.#extraCredit = this.#receive.window!.widen(this.#link!.settings.initialWindow);
    this.#link!.outbox.wait(this);
    this.credited(credit + this.#heldCredit);
    this.handler.open?.();
  }

  /** WINDOW arrived. */
  credited(credit: number): void {
    this.#send.credit(credit);
    if (this.#send.ready) this.#link!.outbox.wait(this);
  }

  /** DATA arrived. */
  receive(bytes: Uint8Array): void {
    this.#receive.receive(bytes);
  }

  /** END arrived. */
  ended(): void {
    this.#receive.end();
  }

  /** RESET arrived (`peer` or `callee`, by its code), or the session or its dial failed (`peer`). */
  fail(reason: ErrorCode, delivered: boolean, detail: string, source: 'peer' | 'callee' = 'peer'): void {
    if (this.#state === 'closed') return;
    this.#finish();
    this.handler.close({ reason, delivered, source, detail });
  }
}
