import { connect, type Socket } from 'node:net';
import { connect as connectTls, type SecureContext } from 'node:tls';
import { MeshError } from '../model/errors.ts';
import { type Operation, type PathAnswer, type ServerMessage, ZookeeperCodec } from './zookeeper-protocol.ts';

/** How long a connection may take to say good-bye. */
const CLOSING_MS = 200;
/** Longest session that is believed; a day bounds what a server can make our timers do. */
const MAX_SESSION_MS = 86_400_000;

/** A server as the configuration names it. */
export interface ZookeeperServer {
  readonly host: string;
  readonly port: number;
}

export interface ZookeeperConnectionOptions {
  readonly server: ZookeeperServer;
  /** Trusted authorities and our certificate; undefined for plain TCP. */
  readonly secure: { readonly context: SecureContext; readonly serverName: string | undefined } | undefined;
  readonly auth: { readonly scheme: string; readonly secret: string } | undefined;
  /** What is asked for, milliseconds; the server answers with its own bound. */
  readonly sessionTimeout: number;
  /** Bound on connecting with the handshake, and on every answer; milliseconds. */
  readonly timeout: number;
  /** Newest transaction that was read; a server that is behind it refuses. */
  readonly lastZxid: bigint;
  /** A watch fired. May throw: the connection is then closed. */
  onChange(change: 'created' | 'deleted' | 'data' | 'children', path: string): void;
}

interface Waiting {
  resolve(answer: PathAnswer): void;
  reject(error: Error): void;
  readonly until: number;
}

/**
 * One connection with a session of its own. A reader's session holds nothing but watches, and they are set again by the
 * full list after each connection: so a session is never taken up again by another connection, and one that the server
 * gave up is only one more connection that ended. The first thing that goes wrong ends it, and `closed` rejects with it.
 */
export class ZookeeperConnection {
  /** Rejects when the connection is over; never resolves. */
  readonly closed: Promise<never>;
  readonly #options: ZookeeperConnectionOptions;
  readonly #codec: ZookeeperCodec;
  readonly #socket: Socket;
  /** In the order in which they were asked, which is the order of the answers. */
  readonly #waiting = new Map<number, Waiting>();
  readonly #opening: NodeJS.Timeout;
  #beat: NodeJS.Timeout | undefined;
  #heard = 0;
  #ready!: () => void;
  #fail!: (error: Error) => void;
  #failure: Error | undefined;

  private constructor(options: ZookeeperConnectionOptions) {
    this.#options = options;
    this.#codec = new ZookeeperCodec(options.lastZxid);
    this.closed = new Promise((_resolve, reject) => {
      this.#fail = reject;
    });
    // Whoever waits for an answer is told of the failure too: nobody has to listen here.
    this.closed.catch(() => undefined);
    const { server, secure, timeout } = options;
    this.#socket =
      secure === undefined
        ? connect({ ...server, noDelay: true })
        : connectTls({ ...server, secureContext: secure.context, ...nameOf(secure.serverName) });
    this.#opening = setTimeout(() => this.close(late(`no session within ${timeout} ms`)), timeout);
    this.#socket.on(secure === undefined ? 'connect' : 'secureConnect', () =>
      this.#socket.write(this.#codec.greeting(options.sessionTimeout)),
    );
    this.#socket.on('data', (bytes) => this.#receive(bytes));
    this.#socket.on('error', (error) => this.close(unreachable(error.message, error)));
    this.#socket.on('close', () => this.close(unreachable('ZooKeeper closed the connection')));
  }

  /** Connects, begins a session, presents the credentials. Rejects with a MeshError. */
  static async open(options: ZookeeperConnectionOptions, signal: AbortSignal): Promise<ZookeeperConnection> {
    const connection = new ZookeeperConnection(options);
    const abort = () => connection.close(unreachable('stopped'));
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    try {
      const ready = new Promise<void>((resolve) => {
        connection.#ready = resolve;
      });
      await Promise.race([ready, connection.closed]);
      return connection;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  /** Newest transaction that the server mentioned. */
  get lastZxid(): bigint {
    return this.#codec.lastZxid;
  }

  /** Asks about a path and leaves a watch. Answers come in the order of the questions. */
  ask(operation: Operation, path: string): Promise<PathAnswer> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const { xid, bytes } = this.#codec.ask(operation, path);
    return new Promise((resolve, reject) => {
      this.#waiting.set(xid, { resolve, reject, until: performance.now() + this.#options.timeout });
      this.#socket.write(bytes);
    });
  }

  /** Ends the session and the connection; everything that waits fails with the reason. Idempotent. */
  close(why: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = why;
    clearTimeout(this.#opening);
    clearInterval(this.#beat);
    // With the session the server forgets the watches at once, and not when the session times out.
    if (this.#beat !== undefined && this.#socket.writable) this.#socket.write(this.#codec.close());
    this.#socket.destroySoon();
    // One that takes nothing any more is not waited for.
    setTimeout(() => this.#socket.destroy(), CLOSING_MS).unref();
    for (const { reject } of this.#waiting.values()) reject(why);
    this.#waiting.clear();
    this.#fail(why);
  }

  #receive(bytes: Uint8Array): void {
    if (this.#failure !== undefined) return;
    try {
      for (const message of this.#codec.push(bytes)) {
        this.#heard = performance.now();
        this.#take(message);
        if (this.#failure !== undefined) return;
      }
    } catch (error) {
      this.close(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #take(message: ServerMessage): void {
    switch (message.kind) {
      case 'session':
        this.#begin(message.timeout);
        break;
      case 'authenticated':
        this.#established();
        break;
      case 'event':
        this.#options.onChange(message.change, message.path);
        break;
      case 'answer': {
        const waiting = this.#waiting.get(message.xid);
        this.#waiting.delete(message.xid);
        waiting?.resolve(message.answer);
        break;
      }
      case 'pong':
    }
  }

  #begin(granted: number): void {
    if (granted <= 0) throw unreachable('ZooKeeper granted no session');
    const timeout = Math.min(granted, MAX_SESSION_MS);
    this.#beat = setInterval(
      () => this.#check(timeout),
      Math.max(10, Math.min(timeout / 4, this.#options.timeout / 2)),
    );
    const { auth } = this.#options;
    if (auth === undefined) this.#established();
    else this.#socket.write(this.#codec.authentication(auth.scheme, auth.secret));
  }

  #established(): void {
    clearTimeout(this.#opening);
    this.#ready();
  }

  /** Says that we are there, and looks whether the server is: two thirds of the session without a word are too many. */
  #check(timeout: number): void {
    const now = performance.now();
    const [oldest] = this.#waiting.values();
    if (oldest !== undefined && oldest.until < now) {
      this.close(late(`no answer within ${this.#options.timeout} ms`));
    } else if (now - this.#heard > (timeout * 2) / 3) {
      this.close(late(`not a word within ${Math.round((timeout * 2) / 3)} ms`));
    } else this.#socket.write(this.#codec.ping());
  }
}

function nameOf(servername: string | undefined): { servername?: string } {
  return servername === undefined ? {} : { servername };
}

function late(text: string): MeshError {
  return new MeshError('timeout', 'registry', `ZooKeeper: ${text}`, { retry: 'safe' });
}

function unreachable(text: string, cause?: unknown): MeshError {
  return new MeshError('registry', 'registry', text, { retry: 'safe', cause });
}
