import { connect, type Socket } from 'node:net';
import type { Endpoint } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';
import type { MsgValue } from './msgpack.ts';
import { SerfCodec } from './serf-rpc.ts';

/** The version of the RPC protocol; the only one there is. */
const RPC_VERSION = 1;

type Body = ReadonlyMap<string, MsgValue>;

interface Waiting {
  resolve(body: Body | undefined): void;
  reject(error: Error): void;
}

interface SerfConnectionOptions {
  readonly address: Endpoint;
  readonly authKey: string | undefined;
  /** Bound on connecting and on every answer, milliseconds. */
  readonly timeout: number;
  /** Bodies of stream events, as many as came together. May throw: the connection is then closed. */
  onEvents(events: readonly Body[]): void;
}

/**
 * One connection to the RPC port of a Serf agent: handshake, requests each with a bound on time, events.
 * The first thing that goes wrong ends it, and `closed` rejects with the reason.
 */
export class SerfConnection {
  /** Rejects when the connection is over; never resolves. */
  readonly closed: Promise<never>;
  readonly #options: SerfConnectionOptions;
  readonly #codec = new SerfCodec();
  readonly #waiting = new Map<number, Waiting>();
  readonly #socket: Socket;
  #stream: number | undefined;
  #fail!: (error: Error) => void;
  #failure: Error | undefined;

  private constructor(options: SerfConnectionOptions) {
    this.#options = options;
    this.closed = new Promise((_resolve, reject) => {
      this.#fail = reject;
    });
    // Whoever waits for an answer is told of the failure too: nobody has to listen here.
    this.closed.catch(() => undefined);
    const { ip, port } = options.address;
    this.#socket = connect({ host: ip, port, noDelay: true, keepAlive: true });
    this.#socket.on('data', (bytes) => this.#receive(bytes));
    this.#socket.on('error', (error) => this.close(unreachable(error.message, error)));
    this.#socket.on('close', () => this.close(unreachable('the Serf agent closed the connection')));
  }

  /** Connects, shakes hands, presents the key. Rejects with a MeshError. */
  static async open(options: SerfConnectionOptions, signal: AbortSignal): Promise<SerfConnection> {
    const connection = new SerfConnection(options);
    const abort = () => connection.close(unreachable('stopped'));
    signal.addEventListener('abort', abort, { once: true });
    try {
      await connection.request('handshake', { Version: RPC_VERSION }, 'plain');
      if (options.authKey !== undefined)
        await connection.request('auth', { AuthKey: options.authKey }, 'plain');
      return connection;
    } catch (error) {
      connection.close(unreachable('handshake failed', error));
      throw error;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  /** Begins the stream of events. */
  async stream(type: string): Promise<void> {
    const { seq, bytes } = this.#codec.request('stream', { Type: type }, 'stream');
    this.#stream = seq;
    await this.#ask('stream', seq, bytes);
  }

  /** Asks and waits for the answer. */
  async request(
    command: string,
    fields: Readonly<Record<string, string | number>> | undefined,
    shape: 'plain' | 'body',
  ): Promise<Body | undefined> {
    const { seq, bytes } = this.#codec.request(command, fields, shape);
    return this.#ask(command, seq, bytes);
  }

  /** Ends the connection; everything that waits fails with the reason. Idempotent. */
  close(why: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = why;
    this.#socket.destroy();
    for (const { reject } of this.#waiting.values()) reject(why);
    this.#waiting.clear();
    this.#fail(why);
  }

  #ask(command: string, seq: number, bytes: Uint8Array): Promise<Body | undefined> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const text = `no answer to ${command} within ${this.#options.timeout} ms`;
        this.close(new MeshError('timeout', 'registry', text, { retry: 'safe' }));
      }, this.#options.timeout);
      this.#waiting.set(seq, {
        resolve: (body) => {
          clearTimeout(timer);
          resolve(body);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      this.#socket.write(bytes);
    });
  }

  #receive(bytes: Uint8Array): void {
    try {
      const events: Body[] = [];
      for (const { seq, error, body } of this.#codec.push(bytes)) {
        if (seq === this.#stream && body !== undefined) {
          events.push(body);
          continue;
        }
        const waiting = this.#waiting.get(seq);
        this.#waiting.delete(seq);
        if (error === '') waiting?.resolve(body);
        else waiting?.reject(new MeshError('registry', 'registry', `Serf agent: ${error.slice(0, 200)}`));
      }
      if (events.length > 0) this.#options.onEvents(events);
    } catch (error) {
      this.close(error instanceof Error ? error : new Error(String(error)));
    }
  }
}

function unreachable(text: string, cause?: unknown): MeshError {
  return new MeshError('registry', 'registry', text, { retry: 'safe', cause });
}
