import { MeshError } from '../model/errors.ts';

/*
 * ZooKeeper's client protocol without I/O, as far as a reader needs it: frames of a length (int32) and a body in Jute,
 * big-endian; a string or buffer is its length (-1: none) and its bytes. Source: zookeeper.jute and ZooDefs.OpCode of
 * Apache ZooKeeper 3.8. Whatever the bytes are, reading them ends in a value or in a MeshError.
 */

/** Most bytes of one frame. ZooKeeper's own bound (jute.maxbuffer) is 1 MiB unless the operator raised it. */
const MAX_FRAME_BYTES = 8 * 1024 * 1024;

const opcodes = { exists: 3, getData: 4, getChildren: 8 } as const;
/** What can be asked about a path; each leaves a watch, which tells one change. */
export type Operation = keyof typeof opcodes;

const PING_XID = -2;
const AUTH_XID = -4;
const EVENT_XID = -1;
const PING = 11;
const AUTH = 100;
const CLOSE_SESSION = -11;

/** Errors of ZooKeeper that are facts about a path and not failures (KeeperException.Code). */
const NO_NODE = -101;
const AUTH_FAILED = -115;
const errorTexts: ReadonlyMap<number, string> = new Map([
  [-4, 'connection loss'],
  [-5, 'marshalling error'],
  [NO_NODE, 'no such path'],
  [-102, 'not allowed to read it'],
  [-112, 'the session expired'],
  [AUTH_FAILED, 'the credentials were refused'],
  [-124, 'the server throttles'],
]);

/** What was answered about a path: it is there, it is not, or it cannot be read. */
export type PathAnswer =
  | { readonly kind: 'children'; readonly names: readonly string[] }
  | { readonly kind: 'data'; readonly bytes: Uint8Array }
  | { readonly kind: 'there' }
  | { readonly kind: 'absent' }
  | { readonly kind: 'refused'; readonly why: string };

/** One message of the server. */
export type ServerMessage =
  | { readonly kind: 'session'; readonly timeout: number }
  | { readonly kind: 'pong' }
  | { readonly kind: 'authenticated' }
  | {
      readonly kind: 'event';
      readonly change: 'created' | 'deleted' | 'data' | 'children';
      readonly path: string;
    }
  | { readonly kind: 'answer'; readonly xid: number; readonly answer: PathAnswer };

const changes = new Map([
  [1, 'created'],
  [2, 'deleted'],
  [3, 'data'],
  [4, 'children'],
] as const);

/** One connection's side of the conversation: bytes of requests, and messages out of the server's bytes. */
export class ZookeeperCodec {
  /** Highest transaction that the server mentioned; a server that knows less is behind what was read already. */
  lastZxid: bigint;
  readonly #asked = new Map<number, Operation>();
  #pending: Uint8Array[] = [];
  #buffered = 0;
  #wanted = 4;
  #xid = 0;
  #greeted = false;

  constructor(lastZxid: bigint) {
    this.lastZxid = lastZxid;
  }

  /** Asks for a new session that is given up after so many milliseconds without a word. */
  greeting(sessionTimeout: number): Buffer {
    const body = Buffer.alloc(45);
    body.writeBigInt64BE(this.lastZxid, 4);
    body.writeInt32BE(sessionTimeout, 12);
    body.writeInt32BE(16, 24); // no session to take up again: id 0 and a password of zeros
    return framed(body);
  }

  ping(): Buffer {
    return framed(ints(PING_XID, PING));
  }

  close(): Buffer {
    return framed(ints(0, CLOSE_SESSION));
  }

  authentication(scheme: string, secret: string): Buffer {
    return framed(Buffer.concat([ints(AUTH_XID, AUTH, 0), text(scheme), text(secret)]));
  }

  ask(operation: Operation, path: string): { readonly xid: number; readonly bytes: Buffer } {
    this.#xid = this.#xid === 0x7fffffff ? 1 : this.#xid + 1;
    this.#asked.set(this.#xid, operation);
    const body = Buffer.concat([ints(this.#xid, opcodes[operation]), text(path), Buffer.of(1)]);
    return { xid: this.#xid, bytes: framed(body) };
  }

  /** What the server says with these bytes, in order. Throws a MeshError of code `protocol`. */
  *push(bytes: Uint8Array): Generator<ServerMessage> {
    this.#pending.push(bytes);
    this.#buffered += bytes.length;
    while (this.#buffered >= this.#wanted) {
      const all = Buffer.concat(this.#pending);
      let at = 0;
      for (;;) {
        if (all.length - at < 4) {
          this.#wanted = 4;
          break;
        }
        const length = all.readInt32BE(at);
        if (length < 0 || length > MAX_FRAME_BYTES) throw broken(`a frame of ${length} bytes`);
        if (all.length - at - 4 < length) {
          this.#wanted = 4 + length;
          break;
        }
        const message = this.#message(new JuteReader(all.subarray(at + 4, at + 4 + length)));
        at += 4 + length;
        if (message !== undefined) yield message;
      }
      // A copy: a few bytes must not keep a large buffer alive.
      this.#pending = [Uint8Array.from(all.subarray(at))];
      this.#buffered = all.length - at;
    }
  }

  #message(reader: JuteReader): ServerMessage | undefined {
    if (!this.#greeted) {
      this.#greeted = true;
      reader.int();
      return { kind: 'session', timeout: reader.int() };
    }
    const xid = reader.int();
    const zxid = reader.long();
    const error = reader.int();
    if (zxid > this.lastZxid) this.lastZxid = zxid;
    if (xid === PING_XID) return { kind: 'pong' };
    if (xid === AUTH_XID) {
      if (error !== 0) throw new MeshError('registry', 'registry', `ZooKeeper: ${describe(AUTH_FAILED)}`);
      return { kind: 'authenticated' };
    }
    if (xid === EVENT_XID) {
      const change = changes.get(reader.int() as 1);
      reader.int();
      const path = reader.string();
      return change === undefined ? undefined : { kind: 'event', change, path };
    }
    const operation = this.#asked.get(xid);
    if (operation === undefined) throw broken('an answer that nobody asked for');
    this.#asked.delete(xid);
    return { kind: 'answer', xid, answer: this.#answer(operation, error, reader) };
  }

  #answer(operation: Operation, error: number, reader: JuteReader): PathAnswer {
    if (error === NO_NODE) return { kind: 'absent' };
    if (error !== 0) return { kind: 'refused', why: describe(error) };
    switch (operation) {
      case 'exists':
        return { kind: 'there' };
      case 'getData':
        return { kind: 'data', bytes: reader.buffer() };
      case 'getChildren':
        return { kind: 'children', names: reader.strings() };
    }
  }
}

class JuteReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  int(): number {
    return this.#bytes.readInt32BE(this.#advance(4));
  }

  long(): bigint {
    return this.#bytes.readBigInt64BE(this.#advance(8));
  }

  /** A view of the frame, which is to be read at once; empty for none. */
  buffer(): Uint8Array {
    const length = Math.max(0, this.int());
    const at = this.#advance(length);
    return this.#bytes.subarray(at, at + length);
  }

  string(): string {
    return Buffer.from(this.buffer()).toString('utf8');
  }

  strings(): string[] {
    const count = Math.max(0, this.int());
    // Each takes four bytes at least: a count cannot promise more than there is.
    if (count > (this.#bytes.length - this.#at) / 4) throw broken(`a list of ${count} entries`);
    return Array.from({ length: count }, () => this.string());
  }

  #advance(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) throw broken('a message that ends too early');
    this.#at += length;
    return at;
  }
}

function framed(body: Buffer): Buffer {
  return Buffer.concat([ints(body.length), body]);
}

function ints(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => void bytes.writeInt32BE(value, 4 * i));
  return bytes;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([ints(bytes.length), bytes]);
}

function describe(error: number): string {
  return errorTexts.get(error) ?? `error ${error}`;
}

function broken(what: string): MeshError {
  return new MeshError('protocol', 'registry', `ZooKeeper: ${what}`);
}
