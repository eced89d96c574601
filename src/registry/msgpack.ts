import { MeshError } from '../model/errors.ts';

/*
 * MessagePack as Serf speaks it, from a stream of bytes in any pieces. Not msgpackr, for two reasons: older Serf
 * agents send addresses (raw bytes) in the string type, which a decoder of strings destroys; and a header may claim
 * four thousand million entries, for which nothing may be allocated before they are there.
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md
 */

/** Strings and binaries are both bytes: the older format does not tell them apart. Maps have text keys. */
export type MsgValue = null | boolean | number | Uint8Array | MsgValue[] | Map<string, MsgValue>;

/** Bounds of one message; passing one ends the connection. */
const msgpackLimits = Object.freeze({
  /** 20,000 members with full tags (512 bytes) and their framing are about 16 MiB. */
  messageBytes: 32 * 1024 * 1024,
  /** Entries of all arrays and maps of one message. */
  items: 2_000_000,
  /** Bytes of one string: far above tags (512 bytes in all), names and error texts. */
  rawBytes: 64 * 1024,
  depth: 16,
});

interface Container {
  readonly value: MsgValue[] | Map<string, MsgValue>;
  /** Values still to come; a map's keys count too. */
  left: number;
  key: string | undefined;
}

const INCOMPLETE = Symbol('incomplete');

/** Bytes in, values out. After it threw, the stream is lost: make a new one. */
export class MsgpackDecoder {
  #buffer: Buffer = Buffer.alloc(0);
  #at = 0;
  #stack: Container[] = [];
  #messageBytes = 0;
  #items = 0;

  /** All values that are complete with these bytes. Throws a MeshError of code `protocol`. */
  push(bytes: Uint8Array): MsgValue[] {
    const rest = this.#buffer.length - this.#at;
    this.#buffer =
      rest === 0
        ? Buffer.from(bytes)
        : Buffer.concat([this.#buffer.subarray(this.#at), bytes], rest + bytes.length);
    this.#at = 0;
    const out: MsgValue[] = [];
    for (;;) {
      const start = this.#at;
      const token = this.#token();
      if (token === INCOMPLETE) {
        this.#at = start;
        return out;
      }
      this.#messageBytes += this.#at - start;
      if (this.#messageBytes > msgpackLimits.messageBytes) throw broken('a message is too large');
      if (this.#attach(token, out)) {
        this.#messageBytes = 0;
        this.#items = 0;
      }
    }
  }

  /** Puts a value where it belongs; true when it ended a message. */
  #attach(token: MsgValue | Container, out: MsgValue[]): boolean {
    let value: MsgValue;
    if (isContainer(token)) {
      if (this.#stack.at(-1)?.key === undefined && this.#stack.at(-1)?.value instanceof Map) {
        throw broken('a key of a map is no string');
      }
      if (token.left > 0) {
        if (this.#stack.length >= msgpackLimits.depth) throw broken('a message is nested too deep');
        this.#stack.push(token);
        return false;
      }
      value = token.value;
    } else value = token;
    for (;;) {
      const parent = this.#stack.at(-1);
      if (parent === undefined) {
        out.push(value);
        return true;
      }
      parent.left--;
      if (parent.value instanceof Map) {
        if (parent.key === undefined) {
          if (!(value instanceof Uint8Array)) throw broken('a key of a map is no string');
          parent.key = textOf(value);
          return false;
        }
        parent.value.set(parent.key, value);
        parent.key = undefined;
      } else parent.value.push(value);
      if (parent.left > 0) return false;
      this.#stack.pop();
      value = parent.value;
    }
  }

  /** The next scalar, or the head of the next container. */
  #token(): MsgValue | Container | typeof INCOMPLETE {
    const head = this.#uint(1);
    if (head === INCOMPLETE) return INCOMPLETE;
    if (head <= 0x7f) return head;
    if (head >= 0xe0) return head - 0x100;
    if (head <= 0x8f) return this.#container(head & 0x0f, true);
    if (head <= 0x9f) return this.#container(head & 0x0f, false);
    if (head <= 0xbf) return this.#raw(head & 0x1f);
    switch (head) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xd9:
        return this.#raw(this.#uint(1));
      case 0xc5:
      case 0xda:
        return this.#raw(this.#uint(2));
      case 0xc6:
      case 0xdb:
        return this.#raw(this.#uint(4));
      case 0xca:
        return this.#number(4, (at) => this.#buffer.readFloatBE(at));
      case 0xcb:
        return this.#number(8, (at) => this.#buffer.readDoubleBE(at));
      case 0xcc:
        return this.#uint(1);
      case 0xcd:
        return this.#uint(2);
      case 0xce:
        return this.#uint(4);
      // 64-bit numbers may lose their last bits: Serf's sequence numbers and ports never need them.
      case 0xcf:
        return this.#number(8, (at) => Number(this.#buffer.readBigUInt64BE(at)));
      case 0xd0:
        return this.#number(1, (at) => this.#buffer.readInt8(at));
      case 0xd1:
        return this.#number(2, (at) => this.#buffer.readInt16BE(at));
      case 0xd2:
        return this.#number(4, (at) => this.#buffer.readInt32BE(at));
      case 0xd3:
        return this.#number(8, (at) => Number(this.#buffer.readBigInt64BE(at)));
      case 0xdc:
        return this.#container(this.#uint(2), false);
      case 0xdd:
        return this.#container(this.#uint(4), false);
      case 0xde:
        return this.#container(this.#uint(2), true);
      case 0xdf:
        return this.#container(this.#uint(4), true);
      default:
        throw broken(`type 0x${head.toString(16)} is not used by Serf`);
    }
  }

  #number(size: number, read: (at: number) => number): number | typeof INCOMPLETE {
    const at = this.#at;
    if (at + size > this.#buffer.length) return INCOMPLETE;
    this.#at += size;
    return read(at);
  }

  #uint(size: 1 | 2 | 4): number | typeof INCOMPLETE {
    return this.#number(size, (at) => this.#buffer.readUIntBE(at, size));
  }

  #raw(length: number | typeof INCOMPLETE): Uint8Array | typeof INCOMPLETE {
    if (length === INCOMPLETE) return INCOMPLETE;
    if (length > msgpackLimits.rawBytes) throw broken('a string is too long');
    const at = this.#at;
    if (at + length > this.#buffer.length) return INCOMPLETE;
    this.#at += length;
    return this.#buffer.subarray(at, at + length);
  }

  #container(entries: number | typeof INCOMPLETE, map: boolean): Container | typeof INCOMPLETE {
    if (entries === INCOMPLETE) return INCOMPLETE;
    this.#items += entries;
    if (this.#items > msgpackLimits.items) throw broken('a message has too many entries');
    return { value: map ? new Map() : [], left: map ? entries * 2 : entries, key: undefined };
  }
}

/** Encodes a flat map of texts and small numbers, all that requests to Serf consist of. */
export function encodeMap(fields: Readonly<Record<string, string | number>>): Buffer {
  const entries = Object.entries(fields);
  const parts: Buffer[] = [Buffer.from([0x80 | entries.length])];
  for (const [key, value] of entries)
    parts.push(encodeText(key), typeof value === 'number' ? encodeUint(value) : encodeText(value));
  return Buffer.concat(parts);
}

/** Bytes of a string as text; what is no UTF-8 becomes U+FFFD and then passes no check of names. */
export function textOf(value: Uint8Array): string {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('utf8');
}

/** Without the 8-bit length of the newer format, which older agents do not read. */
function encodeText(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  if (bytes.length < 32) return Buffer.concat([Buffer.from([0xa0 | bytes.length]), bytes]);
  if (bytes.length > 0xffff) throw new RangeError('text of more than 65,535 bytes');
  return Buffer.concat([Buffer.from([0xda, bytes.length >> 8, bytes.length & 0xff]), bytes]);
}

function encodeUint(value: number): Buffer {
  if (value < 0x80) return Buffer.from([value]);
  const bytes = Buffer.alloc(5, 0xce);
  bytes.writeUInt32BE(value, 1);
  return bytes;
}

function isContainer(token: MsgValue | Container): token is Container {
  return typeof token === 'object' && token !== null && 'left' in token;
}

function broken(what: string): MeshError {
  return new MeshError('protocol', 'registry', `Serf RPC: ${what}`);
}
