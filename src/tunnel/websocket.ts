import { MAX_MESSAGE, protocolError } from './frame.ts';

/*
 * The framing of RFC 6455 without I/O, for binary messages only. It is our own because bytes can then be handed on as
 * TLS gives them: `ws`, whose handshake we use, joins the pieces of each message first (docs/tunnel.md says what both
 * ends agree on, and tests talk to `ws`).
 */

export const TUNNEL_PATH = '/mesh-tunnel';
/** Subprotocols in the order of preference. */
export const subprotocols = ['mesh-tunnel.v1'] as const;
export type Subprotocol = (typeof subprotocols)[number];

/** Room that the longest header takes: 2 + 8 length + 4 mask. */
export const MESSAGE_HEADER_ROOM = 14;
const MAX_CONTROL_PAYLOAD = 125;

export const opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** The highest common subprotocol of a peer's offer; undefined when there is none. */
export function chooseSubprotocol(offered: string | undefined): Subprotocol | undefined {
  const names = (offered ?? '').split(',', 32).map((name) => name.trim());
  return subprotocols.find((name) => names.includes(name));
}

/**
 * Writes the header of an unfragmented frame so that it ends at `end`; returns where it begins. A client's frames
 * carry a mask of zeros: legal, and the payload stays as it is (TLS below hides it from proxies anyway).
 */
export function writeMessageHeader(
  out: Buffer,
  end: number,
  kind: number,
  length: number,
  masked: boolean,
): number {
  const at = end - (length < 126 ? 2 : length < 65536 ? 4 : 10) - (masked ? 4 : 0);
  out[at] = 0x80 | kind;
  const mask = masked ? 0x80 : 0;
  if (length < 126) out[at + 1] = mask | length;
  else if (length < 65536) {
    out[at + 1] = mask | 126;
    out.writeUInt16BE(length, at + 2);
  } else {
    out[at + 1] = mask | 127;
    out.writeUInt32BE(0, at + 2);
    out.writeUInt32BE(length, at + 6);
  }
  if (masked) out.writeUInt32LE(0, end - 4);
  return at;
}

/** A whole control frame. */
export function controlMessage(kind: number, payload: Uint8Array, masked: boolean): Buffer {
  const header = 2 + (masked ? 4 : 0);
  const out = Buffer.alloc(header + payload.length);
  writeMessageHeader(out, header, kind, payload.length, masked);
  out.set(payload, header);
  return out;
}

/** A CLOSE frame with an RFC 6455 status code. */
export function closeMessage(status: number, masked: boolean): Buffer {
  return controlMessage(opcode.close, Buffer.from([status >>> 8, status & 0xff]), masked);
}

/** What the parser found. Views are valid during the call only. */
export interface MessageSink {
  /** A piece of a binary message, never empty. */
  payload(bytes: Buffer): void;
  /** The message is complete. */
  messageEnd(): void;
  /** PING, PONG or CLOSE. */
  control(kind: number, payload: Buffer): void;
}

/** Takes bytes in any pieces; holds 14 bytes of header and at most 125 of a control frame. */
export class MessageParser {
  readonly #sink: MessageSink;
  /** The other side is a client: its frames must be masked, a server's must not. */
  readonly #fromClient: boolean;
  readonly #header = Buffer.alloc(MESSAGE_HEADER_ROOM);
  #have = 0;
  #need = 2;
  #opcode = 0;
  #fin = false;
  #remaining = 0;
  #inPayload = false;
  /** Bytes of the message so far, over its fragments; -1 between messages. */
  #messageLength = -1;
  #masked = false;
  readonly #mask = new Uint8Array(4);
  #maskAt = 0;
  readonly #control = Buffer.alloc(MAX_CONTROL_PAYLOAD);
  #controlHave = 0;
  #stopped = false;

  constructor(fromClient: boolean, sink: MessageSink) {
    this.#fromClient = fromClient;
    this.#sink = sink;
  }

  /** Nothing is handed on any more, also of the bytes being parsed now. */
  stop(): void {
    this.#stopped = true;
  }

  /** Parses `chunk`, which it may unmask in place; throws a `protocol` MeshError when it breaks the format. */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && !this.#stopped) {
      if (this.#inPayload) {
        at = this.#readPayload(chunk, at);
        continue;
      }
      // Byte by byte: a header comes once for each message, that is for each turn of the peer's loop.
      this.#header[this.#have++] = chunk[at++]!;
      if (this.#have === this.#need) this.#headerByte();
    }
  }

  /** Called when `#need` bytes of the header are there: either more are needed, or the payload begins. */
  #headerByte(): void {
    const header = this.#header;
    if (this.#need === 2) {
      this.#checkStart(header[0]!, header[1]!);
      const length = header[1]! & 0x7f;
      this.#need = 2 + (length === 126 ? 2 : length === 127 ? 8 : 0) + (this.#masked ? 4 : 0);
      if (this.#need > 2) return;
    }
    const short = header[1]! & 0x7f;
    let length = short;
    if (short === 126) length = header.readUInt16BE(2);
    else if (short === 127) length = header.readUInt32BE(2) * 2 ** 32 + header.readUInt32BE(6);
    if (this.#masked) {
      const end = this.#need;
      this.#mask.set(header.subarray(end - 4, end));
    }
    this.#have = 0;
    this.#need = 2;
    this.#begin(length);
  }

  #checkStart(first: number, second: number): void {
    const kind = first & 0x0f;
    this.#fin = (first & 0x80) !== 0;
    this.#masked = (second & 0x80) !== 0;
    if ((first & 0x70) !== 0) throw protocolError('WebSocket extension bits');
    if (this.#masked !== this.#fromClient) throw protocolError('WebSocket mask bit');
    if (kind >= 8) {
      if (kind > 10) throw protocolError(`WebSocket opcode ${kind}`);
      if (!this.#fin || (second & 0x7f) > MAX_CONTROL_PAYLOAD) throw protocolError('WebSocket control frame');
    } else if (kind === opcode.continuation) {
      if (this.#messageLength < 0) throw protocolError('WebSocket continuation of nothing');
    } else if (kind !== opcode.binary) throw protocolError(`WebSocket opcode ${kind}`);
    else if (this.#messageLength >= 0) throw protocolError('WebSocket message within another');
    this.#opcode = kind;
  }

  #begin(length: number): void {
    this.#remaining = length;
    this.#maskAt = 0;
    if (this.#opcode < 8) {
      if (this.#messageLength < 0) this.#messageLength = 0;
      this.#messageLength += length;
      if (this.#messageLength > MAX_MESSAGE) throw protocolError(`message over ${MAX_MESSAGE} bytes`);
    }
    if (length > 0) this.#inPayload = true;
    else this.#endFrame();
  }

  #readPayload(chunk: Buffer, from: number): number {
    const to = from + Math.min(this.#remaining, chunk.length - from);
    const bytes = chunk.subarray(from, to);
    if (this.#masked) this.#unmask(bytes);
    this.#remaining -= bytes.length;
    if (this.#opcode < 8) this.#sink.payload(bytes);
    else {
      this.#control.set(bytes, this.#controlHave);
      this.#controlHave += bytes.length;
    }
    if (this.#remaining === 0) {
      this.#inPayload = false;
      if (!this.#stopped) this.#endFrame();
    }
    return to;
  }

  #endFrame(): void {
    if (this.#opcode >= 8) {
      const payload = this.#control.subarray(0, this.#controlHave);
      this.#controlHave = 0;
      this.#sink.control(this.#opcode, payload);
    } else if (this.#fin) {
      this.#messageLength = -1;
      this.#sink.messageEnd();
    }
  }

  #unmask(bytes: Buffer): void {
    const mask = this.#mask;
    let at = this.#maskAt;
    this.#maskAt = (at + bytes.length) & 3;
    if ((mask[0]! | mask[1]! | mask[2]! | mask[3]!) === 0) return;
    for (let i = 0; i < bytes.length; i++) bytes[i] = bytes[i]! ^ mask[at++ & 3]!;
  }
}
