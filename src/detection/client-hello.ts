/*
 * The server name that a TLS client asks for: record layer and ClientHello of RFC 8446, 5.1 and 4.1.2 (the same since
 * TLS 1.0), server_name of RFC 6066, 3. Nothing else of it is looked at, and nothing is decrypted.
 */

/** Bytes of a ClientHello with its records that are looked at. Those of today have 200 to 2,000. */
export const MAX_HELLO = 16 * 1024;

const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const RECORD_HEADER = 5;
const MESSAGE_HEADER = 4;
const MAX_RECORD = 16 * 1024;
const RANDOM = 32;
const SERVER_NAME = 0;
const HOST_NAME = 0;
const MAX_NAME = 253;

/** What a DNS name is made of, as clients write it; no address, which is not allowed there. */
const NAME = /^[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*$/;

/** What was found: `more` bytes are needed, it is `other` than a ClientHello, or its name; undefined where it has none. */
export type HelloFound =
  | { readonly kind: 'more' | 'other' }
  | { readonly kind: 'hello'; readonly name: string | undefined };

const MORE: HelloFound = { kind: 'more' };
const OTHER: HelloFound = { kind: 'other' };
const NAMELESS: HelloFound = { kind: 'hello', name: undefined };

/** Whether bytes begin a ClientHello, by the first six of them at most; undefined while that is open. */
export function beginsHello(bytes: Uint8Array): boolean | undefined {
  const [type, major, minor, , , message] = bytes;
  if (type !== undefined && type !== HANDSHAKE) return false;
  if (major !== undefined && major !== 3) return false;
  if (minor !== undefined && minor > 4) return false;
  if (message !== undefined) return message === CLIENT_HELLO;
  return undefined;
}

/** Reads a ClientHello from all of a client's first bytes. */
export function readHello(bytes: Uint8Array): HelloFound {
  const begins = beginsHello(bytes);
  if (begins === false) return OTHER;
  if (begins === undefined) return MORE;
  const message = joinRecords(bytes);
  if (message === undefined) return OTHER;
  if (message.length < MESSAGE_HEADER) return MORE;
  const length = message.readUIntBE(1, 3);
  if (length > MAX_HELLO) return OTHER;
  if (message.length < MESSAGE_HEADER + length) return bytes.length < MAX_HELLO ? MORE : OTHER;
  return readMessage(new Cursor(message.subarray(MESSAGE_HEADER, MESSAGE_HEADER + length)));
}

/** The content of the handshake records that are there, the last one perhaps in part; undefined where they are none. */
function joinRecords(bytes: Uint8Array): Buffer | undefined {
  const pieces: Uint8Array[] = [];
  let at = 0;
  while (at + RECORD_HEADER <= bytes.length) {
    const length = (bytes[at + 3]! << 8) | bytes[at + 4]!;
    if (bytes[at] !== HANDSHAKE || bytes[at + 1] !== 3 || length === 0 || length > MAX_RECORD)
      return complete(pieces) ? Buffer.concat(pieces) : undefined;
    pieces.push(bytes.subarray(at + RECORD_HEADER, at + RECORD_HEADER + length));
    at += RECORD_HEADER + length;
  }
  return Buffer.concat(pieces);
}

/** Whether the message is there already, so that what stands behind it is no concern: early data, another alert. */
function complete(pieces: readonly Uint8Array[]): boolean {
  const message = Buffer.concat(pieces);
  return message.length >= MESSAGE_HEADER && message.length >= MESSAGE_HEADER + message.readUIntBE(1, 3);
}

function readMessage(hello: Cursor): HelloFound {
  if (!hello.skip(2 + RANDOM) || !hello.skipVector(1) || !hello.skipVector(2) || !hello.skipVector(1))
    return OTHER;
  // TLS 1.2 and before may have none.
  if (hello.left === 0) return NAMELESS;
  const extensions = hello.vector(2);
  if (extensions === undefined) return OTHER;
  while (extensions.left > 0) {
    const type = extensions.number(2);
    const value = extensions.vector(2);
    if (type === undefined || value === undefined) return OTHER;
    if (type === SERVER_NAME) return serverName(value);
  }
  return NAMELESS;
}

function serverName(value: Cursor): HelloFound {
  const list = value.vector(2);
  const type = list?.number(1);
  const name = list?.vector(2);
  if (type === undefined || name === undefined) return OTHER;
  if (type !== HOST_NAME || name.left > MAX_NAME + 1) return NAMELESS;
  const text = name.text().toLowerCase().replace(/\.$/, '');
  return text.length <= MAX_NAME && NAME.test(text) ? { kind: 'hello', name: text } : NAMELESS;
}

/** Reads numbers and vectors one after the other; undefined, or false, where they are not there. */
class Cursor {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  skip(length: number): boolean {
    if (this.left < length) return false;
    this.#at += length;
    return true;
  }

  number(size: 1 | 2): number | undefined {
    if (this.left < size) return undefined;
    const number = this.#bytes.readUIntBE(this.#at, size);
    this.#at += size;
    return number;
  }

  /** What stands behind a length of so many bytes. */
  vector(size: 1 | 2): Cursor | undefined {
    const length = this.number(size);
    if (length === undefined || this.left < length) return undefined;
    const bytes = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return new Cursor(bytes);
  }

  skipVector(size: 1 | 2): boolean {
    return this.vector(size) !== undefined;
  }

  text(): string {
    return this.#bytes.toString('latin1', this.#at);
  }
}
