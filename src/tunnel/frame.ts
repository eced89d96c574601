import { type ErrorCode, errorCodes, MeshError } from '../model/errors.ts';

/*
 * Frame codec of docs/tunnel.md, without I/O. Writers put a frame into the session's output buffer and return its
 * end; the parser takes bytes in any pieces and hands DATA on as it comes, so nothing is ever concatenated.
 */

export const FRAME_HEADER = 8;
/** Largest message (and so the largest frame) that is taken or sent. */
export const MAX_MESSAGE = 256 * 1024;
/** Largest body of a known frame other than DATA. */
export const MAX_CONTROL_BODY = 4096;
/** Longest text in RESET and GOAWAY, in bytes. */
const MAX_DETAIL = 256;

export const frameType = {
  hello: 1,
  open: 2,
  accept: 3,
  data: 4,
  window: 5,
  end: 6,
  reset: 7,
  goaway: 8,
  ping: 9,
  pong: 10,
} as const;

/** Numbers on the wire, which never change; the order of `errorCodes` may. */
const codeNumbers: Readonly<Record<ErrorCode, number>> = {
  refused: 0,
  timeout: 1,
  reset: 2,
  unreachable: 3,
  'no-instance': 4,
  'no-service': 5,
  denied: 6,
  tls: 7,
  protocol: 8,
  overload: 9,
  draining: 10,
  loop: 11,
  'tunnel-lost': 12,
  configuration: 13,
  registry: 14,
  system: 15,
};
const codesByNumber = new Map<number, ErrorCode>(errorCodes.map((code) => [codeNumbers[code], code]));

/** With these an agent speaks of the application, or of what it decided about the caller; with all others of itself. */
const calleeCodes: ReadonlySet<ErrorCode> = new Set([
  'refused',
  'timeout',
  'reset',
  'unreachable',
  'no-instance',
  'no-service',
  'denied',
]);

/** Whose doing a RESET with this code is. */
export function resetSource(code: ErrorCode): 'peer' | 'callee' {
  return calleeCodes.has(code) ? 'callee' : 'peer';
}

/** What each side says first. */
export interface Hello {
  /** Bytes that a stream may send before its ACCEPT. */
  readonly openCredit: number;
  /** Streams that the receiver of this HELLO may have open. */
  readonly maxStreams: number;
  readonly capabilities: number;
  /** Drawn once for each start of an agent. */
  readonly epoch: bigint;
}

/** Body of RESET. */
export interface ResetBody {
  readonly code: ErrorCode;
  readonly delivered: boolean;
  readonly detail: string;
}

/** Body of GOAWAY. */
export interface GoawayBody {
  /** Highest stream of the peer that will be served. */
  readonly last: number;
  readonly code: ErrorCode;
  readonly detail: string;
}

/** Writes a frame header at `at`; returns where the body begins. */
export function writeHeader(out: Buffer, at: number, type: number, stream: number, length: number): number {
  // Byte stores instead of writeUInt32LE: no bounds checks twice on the hottest path.
  out[at] = type;
  out[at + 1] = length;
  out[at + 2] = length >>> 8;
  out[at + 3] = length >>> 16;
  out[at + 4] = stream;
  out[at + 5] = stream >>> 8;
  out[at + 6] = stream >>> 16;
  out[at + 7] = stream >>> 24;
  return at + FRAME_HEADER;
}

export const HELLO_SIZE: number = FRAME_HEADER + 20;
export function writeHello(out: Buffer, at: number, hello: Hello): number {
  const body = writeHeader(out, at, frameType.hello, 0, 20);
  out.writeUInt32LE(hello.openCredit, body);
  out.writeUInt32LE(hello.maxStreams, body + 4);
  out.writeUInt32LE(hello.capabilities, body + 8);
  return out.writeBigUInt64LE(hello.epoch, body + 12);
}

export const CREDIT_SIZE: number = FRAME_HEADER + 4;
/** ACCEPT and WINDOW: a credit. */
export function writeCredit(out: Buffer, at: number, type: 3 | 5, stream: number, credit: number): number {
  return out.writeUInt32LE(credit, writeHeader(out, at, type, stream, 4));
}

export const PING_SIZE: number = FRAME_HEADER + 8;
export function writePing(out: Buffer, at: number, type: 9 | 10, token: bigint): number {
  return out.writeBigUInt64LE(token, writeHeader(out, at, type, 0, 8));
}

/** Most that one RESET or GOAWAY takes. */
export const REASON_SIZE: number = FRAME_HEADER + 6 + MAX_DETAIL;
export function writeReset(out: Buffer, at: number, stream: number, reset: ResetBody): number {
  const body = at + FRAME_HEADER;
  out.writeUInt16LE(codeNumbers[reset.code], body);
  out[body + 2] = reset.delivered ? 1 : 0;
  // Buffer.write never cuts a character in two.
  const end = body + 3 + out.write(reset.detail, body + 3, MAX_DETAIL, 'utf8');
  writeHeader(out, at, frameType.reset, stream, end - body);
  return end;
}

export function writeGoaway(out: Buffer, at: number, goaway: GoawayBody): number {
  const body = at + FRAME_HEADER;
  out.writeUInt32LE(goaway.last, body);
  out.writeUInt16LE(codeNumbers[goaway.code], body + 4);
  const end = body + 6 + out.write(goaway.detail, body + 6, MAX_DETAIL, 'utf8');
  writeHeader(out, at, frameType.goaway, 0, end - body);
  return end;
}

function need(body: Buffer, size: number, name: string): void {
  if (body.length < size) throw protocolError(`${name} of ${body.length} bytes, expected at least ${size}`);
}

/** The peer broke the format; the tunnel ends. */
export function protocolError(message: string): MeshError {
  return new MeshError('protocol', 'peer', message);
}

export function readHello(body: Buffer): Hello {
  need(body, 20, 'HELLO');
  return {
    openCredit: body.readUInt32LE(0),
    maxStreams: body.readUInt32LE(4),
    capabilities: body.readUInt32LE(8),
    epoch: body.readBigUInt64LE(12),
  };
}

export function readCredit(body: Buffer): number {
  need(body, 4, 'credit');
  return body.readUInt32LE(0);
}

export function readPing(body: Buffer): bigint {
  need(body, 8, 'PING');
  return body.readBigUInt64LE(0);
}

/** Text of a peer for our log: bounded, and without control characters. */
function readDetail(body: Buffer, from: number): string {
  return body
    .toString('utf8', from, Math.min(body.length, from + MAX_DETAIL))
    .replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, '?');
}

export function readReset(body: Buffer): ResetBody {
  need(body, 3, 'RESET');
  return {
    code: codesByNumber.get(body.readUInt16LE(0)) ?? 'reset',
    delivered: (body[2]! & 1) === 1,
    detail: readDetail(body, 3),
  };
}

export function readGoaway(body: Buffer): GoawayBody {
  need(body, 6, 'GOAWAY');
  return {
    last: body.readUInt32LE(0),
    code: codesByNumber.get(body.readUInt16LE(4)) ?? 'reset',
    detail: readDetail(body, 6),
  };
}

/** What the parser found. Views are valid during the call only. */
export interface FrameSink {
  /** A whole frame other than DATA, or an empty DATA frame. Unknown types come with an empty body. */
  frame(type: number, stream: number, body: Buffer): void;
  /** A piece of a DATA frame, never empty. */
  data(stream: number, bytes: Uint8Array): void;
}

const EMPTY = Buffer.alloc(0);

/** Takes message bytes in any pieces. Holds at most one control body (4 KiB, allocated when one is split). */
export class FrameParser {
  readonly #sink: FrameSink;
  readonly #header = Buffer.alloc(FRAME_HEADER);
  #headerHave = 0;
  #type = 0;
  #stream = 0;
  /** Bytes of the body still to come. */
  #remaining = 0;
  #inBody = false;
  #body: Buffer | undefined;
  #bodyHave = 0;
  #stopped = false;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** True between two frames: the only place where a message may end. */
  get atBoundary(): boolean {
    return this.#headerHave === 0 && !this.#inBody;
  }

  /** Nothing is handed on any more, also of the bytes being parsed now. */
  stop(): void {
    this.#stopped = true;
  }

  /** Parses `chunk`; throws a `protocol` MeshError when it breaks the format. */
  push(chunk: Buffer): void {
    let at = 0;
    const end = chunk.length;
    while (at < end && !this.#stopped) {
      if (!this.#inBody) {
        at = this.#readHeader(chunk, at);
        if (!this.#inBody) continue;
      }
      at = this.#readBody(chunk, at);
    }
  }

  #readHeader(chunk: Buffer, from: number): number {
    let header = chunk;
    let at = from;
    if (this.#headerHave > 0 || chunk.length - from < FRAME_HEADER) {
      const take = Math.min(FRAME_HEADER - this.#headerHave, chunk.length - from);
      chunk.copy(this.#header, this.#headerHave, from, from + take);
      this.#headerHave += take;
      if (this.#headerHave < FRAME_HEADER) return from + take;
      header = this.#header;
      at = 0;
      this.#start(header, at);
      return from + take;
    }
    this.#start(header, at);
    return from + FRAME_HEADER;
  }

  #start(header: Buffer, at: number): void {
    this.#headerHave = 0;
    const type = header[at]!;
    const length = header[at + 1]! | (header[at + 2]! << 8) | (header[at + 3]! << 16);
    const stream =
      (header[at + 4]! | (header[at + 5]! << 8) | (header[at + 6]! << 16) | (header[at + 7]! << 24)) >>> 0;
    if (length > MAX_MESSAGE - FRAME_HEADER) throw protocolError(`frame of ${length} bytes`);
    if (type !== frameType.data && type >= 1 && type <= 10 && length > MAX_CONTROL_BODY) {
      throw protocolError(`frame of type ${type} with ${length} bytes`);
    }
    if (length === 0) {
      this.#sink.frame(type, stream, EMPTY);
      return;
    }
    this.#type = type;
    this.#stream = stream;
    this.#remaining = length;
    this.#inBody = true;
  }

  #readBody(chunk: Buffer, from: number): number {
    const take = Math.min(this.#remaining, chunk.length - from);
    if (take === 0) return from;
    const to = from + take;
    const type = this.#type;
    if (type === frameType.data) {
      this.#remaining -= take;
      this.#inBody = this.#remaining > 0;
      // A plain Uint8Array: its `slice` copies, as owners expect; that of a Buffer does not.
      this.#sink.data(this.#stream, new Uint8Array(chunk.buffer, chunk.byteOffset + from, take));
      return to;
    }
    const known = type >= 1 && type <= 10;
    if (take === this.#remaining && this.#body === undefined) {
      this.#remaining = 0;
      this.#inBody = false;
      this.#sink.frame(type, this.#stream, known ? chunk.subarray(from, to) : EMPTY);
      return to;
    }
    if (known) {
      this.#body ??= Buffer.allocUnsafe(this.#remaining);
      chunk.copy(this.#body, this.#bodyHave, from, to);
      this.#bodyHave += take;
    }
    this.#remaining -= take;
    if (this.#remaining > 0) return to;
    const body = this.#body ?? EMPTY;
    this.#body = undefined;
    this.#bodyHave = 0;
    this.#inBody = false;
    this.#sink.frame(type, this.#stream, body);
    return to;
  }
}
