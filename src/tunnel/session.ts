import type { Duplex } from 'node:stream';
import type { Config } from '../config/schema.ts';
import { type ErrorCode, MeshError } from '../model/errors.ts';
import type { PeerIdentity } from '../model/peer.ts';
import { FloodGuard } from './flood-guard.ts';
import {
  FrameParser,
  frameType,
  HELLO_SIZE,
  type Hello,
  protocolError,
  REASON_SIZE,
  readCredit,
  readGoaway,
  readHello,
  readPing,
  readReset,
  resetSource,
  writeGoaway,
  writeHello,
  writeReset,
} from './frame.ts';
import { decodeOpen, type OpenRequest } from './open-request.ts';
import { Outbox, type TurnScheduler } from './outbox.ts';
import { Pacer } from './pacer.ts';
import { readLoop } from './read-loop.ts';
import { type StreamLink, TunnelStream } from './stream.ts';
import { closeMessage, controlMessage, MessageParser, opcode } from './websocket.ts';
import { OPEN_CREDIT, WindowBudget } from './window.ts';

export type TunnelSettings = Config['tunnel'];

/** What of the log a tunnel needs; pino's logger is one. */
export interface TunnelLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** What all tunnels of a worker have in common. */
export interface TunnelContext {
  readonly settings: TunnelSettings;
  readonly scheduler: TurnScheduler;
  readonly log: TunnelLog;
  /** Drawn once for each start of the agent, the same in all of its workers. */
  readonly epoch: bigint;
}

export type SessionState = 'connecting' | 'open' | 'draining' | 'closed';
/** Which states may precede each. */
const predecessors: Readonly<Record<SessionState, readonly SessionState[]>> = {
  connecting: [],
  open: ['connecting'],
  draining: ['open'],
  closed: ['connecting', 'open', 'draining'],
};

/** What the owner of a session is told. */
export interface SessionEvents {
  /** The peer opens a stream: call `stream.accept()` or `stream.reset(code)`, and set its handler. */
  stream(open: OpenRequest, stream: TunnelStream, session: TunnelSession): void;
  /** HELLO arrived. */
  open?(session: TunnelSession): void;
  /** No stream may be opened in it any more. */
  draining?(session: TunnelSession): void;
  /** Over, exactly once. `undefined`: an orderly end. */
  closed?(session: TunnelSession, error: MeshError | undefined): void;
}

/** Streams that wait for the owner's `accept`. */
const MAX_OFFERED = 1024;
/** Stream numbers are used up here; a session then drains. */
const LAST_STREAM = 2 ** 31;
/** A round trip older than this is measured afresh while WINDOWs are sent, in ms. */
const RTT_FRESH = 200;
/** The socket of a closed session is destroyed after this, in ms. */
const LINGER = 1000;

/** One tunnel: a byte stream after its WebSocket handshake, and the streams in it. */
export class TunnelSession implements StreamLink {
  readonly peer: PeerIdentity;
  readonly role: 'dialler' | 'acceptor';
  readonly outbox: Outbox;
  readonly windows: WindowBudget;
  readonly initialWindow: number;
  readonly maxWindow: number;
  readonly #context: TunnelContext;
  readonly #events: SessionEvents;
  readonly #socket: Duplex;
  readonly #pacer = new Pacer();
  readonly #messages: MessageParser;
  readonly #frames: FrameParser;
  readonly #flood = new FloodGuard();
  readonly #streams = new Map<number, TunnelStream>();
  readonly #masked: boolean;
  #state: SessionState = 'connecting';
  #hello: Hello | undefined;
  #nextStream: number;
  #lastPeerStream = 0;
  #ownStreams = 0;
  #peerStreams = 0;
  #offered = new Set<TunnelStream>();
  #bytesIn = 0;
  #seenBytes = -1;
  #missed = 0;
  #idleSince: number;
  #tick: NodeJS.Timeout | undefined;
  #helloTimer: NodeJS.Timeout | undefined;

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
    this.#socket = socket;
    this.role = role;
    this.peer = peer;
    this.windows = new WindowBudget(settings.sessionBuffer);
    this.initialWindow = settings.initialWindow;
    this.maxWindow = settings.maxWindow;
    this.#masked = role === 'dialler';
    this.#nextStream = role === 'dialler' ? 1 : 2;
    this.#idleSince = performance.now();
    this.outbox = new Outbox(socket, this.#masked, context.scheduler, this.#pacer);
    this.#frames = new FrameParser(this);
    this.#messages = new MessageParser(role === 'acceptor', {
      payload: (bytes) => this.#frames.push(bytes),
      messageEnd: () => {
        if (!this.#frames.atBoundary) throw protocolError('frame crosses the end of its message');
      },
      control: (kind, payload) => this.#webSocketControl(kind, payload),
    });
    this.#sendHello();
    this.#helloTimer = setTimeout(
      () => this.fail(new MeshError('timeout', 'peer', 'no HELLO from the peer')),
      settings.handshakeTimeout,
    );
    socket.on('error', (cause) => this.#lost(String(cause)));
    socket.on('end', () => this.#lost('the peer closed the connection'));
    socket.on('close', () => this.#lost('the connection is gone'));
    readLoop(socket, (chunk) => this.#receive(chunk));
    if (head.length > 0) this.#receive(head);
  }

  get state(): SessionState {
    return this.#state;
  }

  /** Streams of both sides. */
  get streamCount(): number {
    return this.#streams.size;
  }

  get bytesIn(): number {
    return this.#bytesIn;
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
    return (
      this.#state === 'open' && this.#ownStreams < this.#hello!.maxStreams && this.#nextStream < LAST_STREAM
    );
  }

  /** Opens a queued stream in this session; the caller has asked `hasRoom`. */
  adopt(stream: TunnelStream): void {
    const id = this.#nextStream;
    this.#nextStream += 2;
    this.#ownStreams++;
    this.#streams.set(id, stream);
    stream.attach(this, id);
    if (this.#nextStream >= LAST_STREAM) this.drain();
  }

  forget(stream: TunnelStream): void {
    if (!this.#streams.delete(stream.id)) return;
    this.#offered.delete(stream);
    if (this.#isOwn(stream.id)) this.#ownStreams--;
    else this.#peerStreams--;
    if (this.#streams.size > 0) return;
    this.#idleSince = performance.now();
    // Deferred: the stream's own END or RESET has yet to leave.
    if (this.#state === 'draining') this.#context.scheduler.afterBatch(() => this.#closeWhenDrained());
  }

  windowSent(now: number): void {
    if (!this.#pacer.markPending && now - this.#pacer.markedTime > RTT_FRESH) this.outbox.ping(now);
  }

  /** Takes no new stream from the peer; ends when the live ones are done. */
  drain(code: ErrorCode = 'draining', detail = ''): void {
    if (this.#state === 'connecting') this.close(code, detail);
    if (this.#state !== 'open') return;
    this.#sendGoaway(code, detail);
    this.#transition('draining', detail);
    this.#events.draining?.(this);
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

  /** Asks the peer for a sign of life; without one within `timeout` ms the session is lost. */
  probe(timeout: number): void {
    if (this.#state === 'closed') return;
    const before = this.#bytesIn;
    this.outbox.ping(performance.now());
    setTimeout(() => {
      if (this.#bytesIn === before) this.#lost('no answer to a probe');
    }, timeout).unref();
  }

  // --- receiving

  #receive(chunk: Buffer): void {
    if (this.#state === 'closed') return;
    this.#bytesIn += chunk.length;
    this.#flood.data(chunk.length);
    try {
      this.#messages.push(chunk);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.fail(error);
    }
  }

  #webSocketControl(kind: number, payload: Buffer): void {
    this.#flood.control();
    if (kind === opcode.ping) this.#socket.write(controlMessage(opcode.pong, payload, this.#masked));
    else if (kind === opcode.close) this.#lost('the peer closed the tunnel');
  }

  /** A whole frame; called by the parser. */
  frame(type: number, id: number, body: Buffer): void {
    if (this.#hello === undefined && type !== frameType.hello) throw protocolError('frame before HELLO');
    switch (type) {
      case frameType.hello:
        this.#onHello(body);
        return;
      case frameType.open:
        this.#onOpen(id, body);
        return;
      case frameType.accept:
        this.#stream(id)?.accepted(readCredit(body));
        return;
      case frameType.data:
        this.#flood.control();
        return;
      case frameType.window:
        this.#flood.control();
        this.#stream(id)?.credited(readCredit(body));
        return;
      case frameType.end:
        this.#stream(id)?.ended();
        return;
      case frameType.reset:
        this.#onReset(id, body);
        return;
      case frameType.goaway:
        this.#onGoaway(body);
        return;
      case frameType.ping:
        this.#flood.control();
        this.outbox.pong(readPing(body));
        return;
      case frameType.pong:
        if (!this.#pacer.acked(readPing(body), performance.now())) this.#flood.control();
        this.outbox.poke();
        return;
      default:
        this.#flood.control();
    }
  }

  /** A piece of DATA; called by the parser. */
  data(id: number, bytes: Uint8Array): void {
    if (this.#hello === undefined) throw protocolError('frame before HELLO');
    this.#stream(id)?.receive(bytes);
  }

  /** The live stream of this number; undefined when it is gone; an error when it never was. */
  #stream(id: number): TunnelStream | undefined {
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      const used = this.#isOwn(id) ? id < this.#nextStream : id <= this.#lastPeerStream;
      if (id === 0 || !used) throw protocolError(`frame for stream ${id}, which was never opened`);
    }
    return stream;
  }

  #isOwn(id: number): boolean {
    return (id & 1) === (this.role === 'dialler' ? 1 : 0);
  }

  #onHello(body: Buffer): void {
    if (this.#hello !== undefined) throw protocolError('HELLO after HELLO');
    this.#hello = readHello(body);
    clearTimeout(this.#helloTimer);
    this.#transition('open', '');
    this.#tick = setInterval(() => this.#onTick(), this.#context.settings.keepaliveInterval);
    // The first round trip is the cleanest one: nothing is under way yet.
    this.outbox.ping(performance.now());
    this.#events.open?.(this);
  }

  #onOpen(id: number, body: Buffer): void {
    if (this.#isOwn(id) || id === 0 || id <= this.#lastPeerStream)
      throw protocolError(`OPEN of stream ${id}`);
    this.#lastPeerStream = id;
    if (this.#state !== 'open') {
      this.#refuse(id, 'draining', '');
      return;
    }
    if (this.#peerStreams >= this.#context.settings.maxStreams) {
      this.#refuse(id, 'overload', 'too many streams');
      return;
    }
    if (this.#offered.size >= MAX_OFFERED) {
      this.#refuse(id, 'overload', 'too many streams wait for their ACCEPT');
      return;
    }
    let request: OpenRequest;
    try {
      request = decodeOpen(body);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#refuse(id, error.code, error.message);
      return;
    }
    const stream = TunnelStream.incoming(this, id, this.#defer, performance.now());
    this.#streams.set(id, stream);
    this.#peerStreams++;
    this.#offered.add(stream);
    this.#events.stream(request, stream, this);
  }

  readonly #defer = (task: () => void): void => this.#context.scheduler.afterBatch(task);

  taken(stream: TunnelStream): void {
    this.#offered.delete(stream);
  }

  #refuse(id: number, code: ErrorCode, detail: string): void {
    this.#flood.control();
    const at = this.outbox.begin(REASON_SIZE);
    // The peer opens faster than it reads our answers.
    if (at < 0) throw protocolError('too many streams refused');
    this.outbox.commit(writeReset(this.outbox.buffer, at, id, { code, delivered: false, detail }));
  }

  #onReset(id: number, body: Buffer): void {
    this.#flood.control();
    const stream = this.#stream(id);
    if (stream === undefined) return;
    const { code, delivered, detail } = readReset(body);
    // Where nothing was sent nothing can have arrived, whatever the peer says.
    stream.fail(code, delivered && stream.bytesSent > 0, detail, resetSource(code));
  }

  #onGoaway(body: Buffer): void {
    const { last, code, detail } = readGoaway(body);
    for (const [id, stream] of [...this.#streams]) {
      if (this.#isOwn(id) && id > last) stream.fail(code, false, detail);
    }
    if (this.#state === 'open') this.drain(code, `peer: ${detail || code}`);
  }

  // --- sending

  #sendHello(): void {
    const { settings, epoch } = this.#context;
    const hello = { openCredit: OPEN_CREDIT, maxStreams: settings.maxStreams, capabilities: 0, epoch };
    const at = this.outbox.begin(HELLO_SIZE);
    this.outbox.commit(writeHello(this.outbox.buffer, at, hello));
  }

  #sendGoaway(code: ErrorCode, detail: string): void {
    const at = this.outbox.begin(REASON_SIZE);
    if (at < 0) return;
    const goaway = { last: this.#lastPeerStream, code, detail };
    this.outbox.commit(writeGoaway(this.outbox.buffer, at, goaway));
  }

  // --- life

  #transition(to: SessionState, detail: string): void {
    const from = this.#state;
    if (!predecessors[to].includes(from)) throw new Error(`tunnel session: ${from} → ${to}`);
    this.#state = to;
    const fields = { peer: this.peer.node, role: this.role, ...(detail === '' ? {} : { detail }) };
    this.#context.log.debug(fields, `tunnel ${from} → ${to}`);
  }

  #onTick(): void {
    const now = performance.now();
    const { settings } = this.#context;
    for (const stream of [...this.#offered]) {
      if (now - stream.offeredAt > 2 * settings.handshakeTimeout)
        stream.reset('timeout', 'not accepted in time');
    }
    if (this.#streams.size === 0 && now - this.#idleSince >= settings.idleTimeout) {
      this.drain('draining', 'idle');
      return;
    }
    if (this.#bytesIn !== this.#seenBytes) {
      this.#seenBytes = this.#bytesIn;
      this.#missed = 0;
      return;
    }
    if (this.#missed >= 2) {
      this.#lost('two keepalives were not answered');
      return;
    }
    this.#missed++;
    this.outbox.ping(now);
  }

  #closeWhenDrained(): void {
    if (this.#state === 'draining' && this.#streams.size === 0) this.close('draining');
  }

  #lost(detail: string): void {
    if (this.#state === 'closed') return;
    const orderly = this.#state === 'draining' && this.#streams.size === 0;
    const error = orderly ? undefined : new MeshError('tunnel-lost', 'peer', detail);
    this.#finish(error, 1001, 'tunnel-lost', detail);
  }

  #finish(error: MeshError | undefined, status: number, code: ErrorCode, detail: string): void {
    if (this.#state === 'closed') return;
    if (this.#state === 'open') this.#sendGoaway(code, detail);
    this.#transition('closed', detail);
    clearInterval(this.#tick);
    clearTimeout(this.#helloTimer);
    this.#messages.stop();
    this.#frames.stop();
    this.outbox.finish(closeMessage(status, this.#masked));
    this.#socket.end();
    const socket = this.#socket;
    setTimeout(() => socket.destroy(), LINGER).unref();
    for (const stream of [...this.#streams.values()]) {
      stream.fail('tunnel-lost', stream.bytesSent > 0, detail);
    }
    this.#events.closed?.(this, error);
  }
}
