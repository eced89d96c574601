import type { Duplex } from 'node:stream';
import { MeshError } from '../model/errors.ts';
import { FloodGuard } from './flood-guard.ts';
import { FrameParser, type FrameSink, protocolError } from './frame.ts';
import { Outbox, type TurnScheduler } from './outbox.ts';
import type { Pacer } from './pacer.ts';
import { readLoop } from './read-loop.ts';
import { closeMessage, controlMessage, MessageParser, opcode } from './websocket.ts';

/** The socket of a closed session is destroyed after this, in ms. */
const LINGER = 1000;

/** Who the wire tells. */
export interface WireSink extends FrameSink {
  /** The connection is over; possibly more than once. */
  lost(detail: string): void;
  /** The peer broke the format or a bound. */
  fail(error: MeshError): void;
}

/** A connection after its WebSocket handshake: bytes become frames, an {@link Outbox} turns frames into messages. */
export class Wire {
  readonly outbox: Outbox;
  readonly flood: FloodGuard = new FloodGuard();
  bytesIn = 0;
  /** When bytes came last, on the clock of `performance.now()`. */
  heardAt: number = performance.now();
  readonly #socket: Duplex;
  readonly #masked: boolean;
  readonly #sink: WireSink;
  readonly #messages: MessageParser;
  readonly #frames: FrameParser;
  #closed = false;

  constructor(
    socket: Duplex,
    role: 'dialler' | 'acceptor',
    scheduler: TurnScheduler,
    pacer: Pacer,
    sink: WireSink,
  ) {
    this.#socket = socket;
    this.#masked = role === 'dialler';
    this.#sink = sink;
    this.outbox = new Outbox(socket, this.#masked, scheduler, pacer);
    this.#frames = new FrameParser(sink);
    this.#messages = new MessageParser(role === 'acceptor', {
      payload: (bytes) => this.#frames.push(bytes),
      messageEnd: () => {
        if (!this.#frames.atBoundary) throw protocolError('frame crosses the end of its message');
      },
      control: (kind, payload) => this.#control(kind, payload),
    });
  }

  /** Begins to read; `head` is what came in the same read as the end of the handshake. */
  start(head: Buffer): void {
    const socket = this.#socket;
    socket.on('error', (cause) => this.#sink.lost(String(cause)));
    socket.on('end', () => this.#sink.lost('the peer closed the connection'));
    socket.on('close', () => this.#sink.lost('the connection is gone'));
    readLoop(socket, (chunk) => this.#receive(chunk));
    if (head.length > 0) this.#receive(head);
  }

  /** Sends what is there and a CLOSE with an RFC 6455 status; hands nothing on any more. */
  close(status: number): void {
    this.#closed = true;
    this.#messages.stop();
    this.#frames.stop();
    const socket = this.#socket;
    this.outbox.finish(closeMessage(status, this.#masked));
    socket.end();
    setTimeout(() => socket.destroy(), LINGER).unref();
  }

  #receive(chunk: Buffer): void {
    if (this.#closed) return;
    this.bytesIn += chunk.length;
    this.heardAt = performance.now();
    this.flood.data(chunk.length);
    try {
      this.#messages.push(chunk);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#sink.fail(error);
    }
  }

  #control(kind: number, payload: Buffer): void {
    this.flood.control();
    if (kind === opcode.ping) this.#socket.write(controlMessage(opcode.pong, payload, this.#masked));
    else if (kind === opcode.close) this.#sink.lost('the peer closed the tunnel');
  }
}
