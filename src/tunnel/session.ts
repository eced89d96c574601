import type { Duplex } from 'node:stream';
import { type ErrorCode, MeshError } from '../model/errors.ts';
import type { PeerIdentity } from '../model/peer.ts';
import type { TunnelContext, TunnelSettings } from './context.ts';
import { sendGoaway, sendHello, sendReset } from './control-frames.ts';
import {
  frameType,
  type Hello,
  protocolError,
  readCredit,
  readGoaway,
  readHello,
  readPing,
  readReset,
  resetSource,
} from './frame.ts';
import { Lifecycle, type SessionState } from './lifecycle.ts';
import { Liveness } from './liveness.ts';
import type { OpenRequest } from './open-request.ts';
import type { Outbox } from './outbox.ts';
import { Pacer } from './pacer.ts';
import { remoteAddressOf } from './remote-address.ts';
import { type StreamLink, TunnelStream } from './stream.ts';
import { refusal, StreamTable } from './stream-table.ts';
import { MAX_CREDIT, OPEN_CREDIT, WindowBudget } from './window.ts';
import { Wire, type WireSink } from './wire.ts';

/** What the owner of a session is told. */
export interface SessionEvents {
  /** The peer opens a stream: call `stream.accept()` or `stream.reset(code)`, and set its handler. */
  stream(open: OpenRequest, stream: TunnelStream, session: TunnelSession): void;
  /** HELLO arrived. */
  open?(session: TunnelSession): void;
  /** It was asked to prove that it lives, and did. */
  answered?(session: TunnelSession): void;
  /** Over, exactly once. `undefined`: an orderly end. */
  closed?(session: TunnelSession, error: MeshError | undefined): void;
}

/** A round trip older than this is measured afresh while WINDOWs are sent, in ms. */
const RTT_FRESH = 200;
/** A peer that owes a sign of life for this long has lost what waits for its ACCEPT, in ms. */
const UNANSWERED_AFTER = 2000;
/** How often it is judged again, in ms. */
const JUDGE_EVERY = 500;
/** An OPEN takes a PING along when the last one is older than this, in ms: slow callees are told from silent peers. */
const OPEN_PING = 50;

/** One tunnel: a byte stream after its WebSocket handshake, and the streams in it. */
export class TunnelSession implements StreamLink, WireSink {
  readonly peer: PeerIdentity;
  readonly role: 'dialler' | 'acceptor';
  readonly outbox: Outbox;
  readonly windows: WindowBudget;
  readonly settings: TunnelSettings;
  /** Where the peer is: `address:port`, or `via relay`. */
  readonly remoteAddress: string;
  /** When it was made, in ms since the epoch. */
  readonly since: number = Date.now();
  readonly #context: TunnelContext;
  readonly #events: SessionEvents;
  readonly #wire: Wire;
  readonly #pacer = new Pacer();
  readonly #streams: StreamTable;
  readonly #life: Lifecycle;
  #hello: Hello | undefined;
  readonly #liveness: Liveness;
  #idleSince = performance.now();

  /** `head`: bytes that came after the handshake in the same read. */
  constructor(
    context: TunnelContext,
    role: 'dialler' | 'acceptor',
    socket: Duplex,
    head: Buffer,
    peer: PeerIdentity,
    events: SessionEvents,
  ) {
    const { settings } = context;
    this.#context = context;
    this.#events = events;
    this.role = role;
    this.peer = peer;
    this.remoteAddress = remoteAddressOf(socket);
    this.windows = new WindowBudget(settings.sessionBuffer);
    this.settings = settings;
    this.#streams = new StreamTable(role, settings.maxStreams);
    this.#wire = new Wire(socket, role, context.scheduler, this.#pacer, this);
    this.outbox = this.#wire.outbox;
    this.#liveness = new Liveness(this.outbox, this.#wire, (detail) => this.lost(detail));
    const { epoch } = context;
    const { maxStreams } = settings;
    sendHello(this.outbox, { openCredit: OPEN_CREDIT, maxStreams, capabilities: 0, epoch });
    this.#life = new Lifecycle(context, this);
    this.#wire.start(head);
  }

  get state(): SessionState {
    return this.#life.state;
  }

  /** Streams of both sides. */
  get streamCount(): number {
    return this.#streams.size;
  }

  get bytesIn(): number {
    return this.#wire.bytesIn;
  }

  get bytesOut(): number {
    return this.outbox.bytesOut;
  }

  get rtt(): number | undefined {
    return this.#pacer.rtt;
  }

  get minRtt(): number | undefined {
    return this.#pacer.minRtt;
  }

  get peerOpenCredit(): number {
    return this.#hello?.openCredit ?? 0;
  }

  /** The peer's epoch, once its HELLO is here. */
  get peerEpoch(): bigint | undefined {
    return this.#hello?.epoch;
  }

  /** True when the peer takes one more stream from us. */
  get hasRoom(): boolean {
    const { own, usedUp } = this.#streams;
    return this.state === 'open' && own < this.#hello!.maxStreams && !usedUp;
  }

  /** Opens a queued stream in this session; the caller has asked `hasRoom`. */
  adopt(stream: TunnelStream): void {
    stream.attach(this, this.#streams.add(stream));
    this.#liveness.pingAfter(OPEN_PING, performance.now());
    if (this.#streams.usedUp) this.drain();
  }

  forget(stream: TunnelStream): void {
    if (!this.#streams.remove(stream) || this.#streams.size > 0) return;
    this.#idleSince = performance.now();
    // Deferred: the stream's own END or RESET has yet to leave.
    if (this.state === 'draining') this.#context.scheduler.afterBatch(() => this.#closeWhenDrained());
  }

  windowSent(now: number): void {
    this.#liveness.pingAfter(RTT_FRESH, now);
  }

  /** Takes no new stream from the peer; ends when the live ones are done. */
  drain(code: ErrorCode = 'draining', detail = ''): void {
    if (this.state === 'connecting') this.close(code, detail);
    if (this.state !== 'open') return;
    this.#goaway(code, detail);
    this.#life.enter('draining', detail);
    this.#closeWhenDrained();
  }

  /** Ends at once, in order; streams are closed as `tunnel-lost`. */
  close(code: ErrorCode, detail = ''): void {
    this.#finish(undefined, 1000, code, detail);
  }

  /** Ends at once because of `error`. */
  fail(error: MeshError): void {
    this.#finish(error, error.code === 'protocol' ? 1002 : 1011, error.code, error.message);
  }

  get silence(): number {
    return this.#liveness.silence;
  }

  get quiet(): boolean {
    return this.#liveness.quiet;
  }

  /** Asks the peer for a sign of life; without one within `timeout` ms the session is lost. One probe at a time. */
  probe(timeout: number): void {
    if (this.state !== 'closed') this.#liveness.probe(timeout, (detail) => this.lost(detail));
  }

  /** Asks the peer for a sign of life, for streams that wait for its ACCEPT; those that stand have more time. */
  doubt(): void {
    if (this.state === 'closed') return;
    const timeout = Math.max(JUDGE_EVERY, UNANSWERED_AFTER - this.silence);
    this.#liveness.probe(timeout, (detail) => this.#unanswered(detail));
  }

  /** Streams that stand wait for another interval: networks and machines come back, and plain TCP would wait as well. */
  #unanswered(detail: string): void {
    for (const stream of this.#streams.all()) stream.giveUp(detail);
    if (this.#streams.size === 0 || this.silence >= this.settings.keepaliveInterval) this.lost(detail);
    else this.doubt();
  }

  /** A whole frame came. */
  frame(type: number, id: number, body: Buffer): void {
    if (this.#hello === undefined && type !== frameType.hello) throw protocolError('frame before HELLO');
    switch (type) {
      case frameType.hello:
        this.#onHello(body);
        break;
      case frameType.open:
        this.#onOpen(id, body);
        break;
      case frameType.accept:
        this.#streams.find(id)?.accepted(readCredit(body));
        break;
      case frameType.window:
        this.#wire.flood.control();
        this.#streams.find(id)?.credited(readCredit(body));
        break;
      case frameType.end:
        this.#streams.find(id)?.ended();
        break;
      case frameType.reset:
        this.#onReset(id, body);
        break;
      case frameType.goaway:
        this.#onGoaway(body);
        break;
      case frameType.ping:
        this.#wire.flood.control();
        this.outbox.pong(readPing(body));
        break;
      case frameType.pong:
        if (!this.#pacer.acked(readPing(body), performance.now())) this.#wire.flood.control();
        this.outbox.poke();
        if (this.#liveness.probing) this.#events.answered?.(this);
        break;
      default: // also an empty DATA frame
        this.#wire.flood.control();
    }
  }

  /** A piece of DATA came. */
  data(id: number, bytes: Uint8Array): void {
    if (this.#hello === undefined) throw protocolError('frame before HELLO');
    this.#streams.find(id)?.receive(bytes);
  }

  #onHello(body: Buffer): void {
    if (this.#hello !== undefined) throw protocolError('HELLO after HELLO');
    const hello = readHello(body);
    if (hello.openCredit > MAX_CREDIT) throw protocolError('credit over 2^31');
    this.#hello = hello;
    this.#life.enter('open');
    // The first round trip is the cleanest one: nothing is under way yet.
    this.outbox.ping(performance.now());
    this.#events.open?.(this);
  }

  #onOpen(id: number, body: Buffer): void {
    this.#streams.takeNumber(id);
    const request = this.state === 'open' ? this.#streams.judge(body) : refusal('draining', '');
    if ('code' in request) {
      this.#wire.flood.control();
      if (sendReset(this.outbox, id, request)) return;
      throw protocolError('opens streams faster than it reads our answers');
    }
    const stream = TunnelStream.incoming(this, id, this.#defer, performance.now());
    this.#streams.offer(id, stream);
    this.#events.stream(request, stream, this);
  }

  readonly #defer = (task: () => void): void => this.#context.scheduler.afterBatch(task);

  taken(stream: TunnelStream): void {
    this.#streams.accepted(stream);
  }

  #onReset(id: number, body: Buffer): void {
    this.#wire.flood.control();
    const stream = this.#streams.find(id);
    if (stream === undefined) return;
    const { code, delivered, detail } = readReset(body);
    // Where nothing was sent nothing can have arrived, whatever the peer says.
    stream.fail(code, delivered && stream.bytesSent > 0, detail, resetSource(code));
  }

  #onGoaway(body: Buffer): void {
    const { last, code, detail } = readGoaway(body);
    for (const stream of this.#streams.unserved(last)) stream.fail(code, false, detail);
    if (this.state === 'open') this.drain(code, `peer: ${detail || code}`);
  }

  /** @internal for its lifecycle */
  expired(): void {
    this.fail(new MeshError('timeout', 'peer', 'no HELLO from the peer'));
  }

  /** @internal for its lifecycle */
  tick(now: number): void {
    const { handshakeTimeout, idleTimeout } = this.settings;
    for (const stream of this.#streams.overdue(now - 2 * handshakeTimeout))
      stream.reset('timeout', 'not accepted in time');
    if (this.#streams.size === 0 && now - this.#idleSince >= idleTimeout) {
      this.drain('draining', 'idle');
      return;
    }
    this.#liveness.tick(now);
  }

  #goaway(code: ErrorCode, detail: string): void {
    sendGoaway(this.outbox, { last: this.#streams.lastOfPeer, code, detail });
  }

  #closeWhenDrained(): void {
    if (this.state === 'draining' && this.#streams.size === 0) this.close('draining');
  }

  /** The connection is over. */
  lost(detail: string): void {
    if (this.state === 'closed') return;
    const orderly = this.state === 'draining' && this.#streams.size === 0;
    const error = orderly ? undefined : new MeshError('tunnel-lost', 'peer', detail);
    this.#finish(error, 1001, 'tunnel-lost', detail);
  }

  #finish(error: MeshError | undefined, status: number, code: ErrorCode, detail: string): void {
    if (this.state === 'closed') return;
    // Before the peer's HELLO as well: it may have opened streams already, and is told that nobody took them.
    if (this.state !== 'draining') this.#goaway(code, detail);
    this.#life.enter('closed', detail);
    this.#wire.close(status);
    for (const stream of this.#streams.all()) {
      stream.fail('tunnel-lost', stream.bytesSent > 0, detail);
    }
    this.#events.closed?.(this, error);
  }
}
