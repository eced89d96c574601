import { CR, HEX, LF, QUOTED, SP, TOKEN } from './characters.ts';
import { Fields, known } from './fields.ts';
import type { Framing } from './framing.ts';
import {
  type Http1Limits,
  MAX_CHUNK_EXTENSION,
  MAX_CHUNK_EXTENSIONS,
  MAX_CHUNK_SIZE_DIGITS,
} from './limits.ts';
import { HttpRefusal, type RefusalReason, type Side } from './refusal.ts';
import { SectionScanner } from './section-scanner.ts';

const SIZE = 0;
const EXTENSION_NAME = 1;
const EXTENSION_VALUE = 2;
const EXTENSION_QUOTED = 3;
const EXTENSION_END = 4;
const SIZE_LF = 5;
const DATA = 6;
const DATA_CR = 7;
const DATA_LF = 8;
const TRAILERS = 9;
/** Content that is delimited by its length, or by the end of the connection. */
const PLAIN = 10;
const DONE = 11;

const SEMICOLON = 0x3b;
const EQUALS = 0x3d;
const QUOTE = 0x22;

/** Reads the content of one message after the other; `begin` before each. Holds nothing but a split trailer section. */
export class BodyReader {
  readonly #side: Side;
  readonly #limits: Http1Limits;
  #state: number = DONE;
  /** Bytes of the content, or of the chunk, still to come. */
  #remaining = 0;
  #digits = 0;
  /** Bytes of extensions: of this chunk, of the message. */
  #extension = 0;
  #extensions = 0;
  /** Length of the extension's part being read. */
  #part = 0;
  #scanner: SectionScanner | undefined;

  /** The trailer section of a chunked message that is done; undefined when it had no field. */
  trailers: Fields | undefined;

  constructor(side: Side, limits: Http1Limits) {
    this.#side = side;
    this.#limits = limits;
  }

  /** Begins with the content of a message. */
  begin(framing: Framing): void {
    this.trailers = undefined;
    this.#remaining = 0;
    switch (framing.kind) {
      case 'length':
        this.#remaining = framing.length;
        this.#state = framing.length === 0 ? DONE : PLAIN;
        break;
      case 'chunked':
        this.#state = SIZE;
        this.#digits = 0;
        this.#extension = 0;
        this.#extensions = 0;
        break;
      case 'close':
        this.#remaining = Number.POSITIVE_INFINITY;
        this.#state = PLAIN;
        break;
      default:
        this.#state = DONE;
    }
  }

  /** All of the content, and the trailers, were read. */
  get done(): boolean {
    return this.#state === DONE;
  }

  /**
   * Reads `chunk` from `from` on until a piece of content was found, the content is over, or the chunk is. Returns the
   * index after what was read. Throws an {@link HttpRefusal}.
   */
  read(chunk: Uint8Array, from: number, content: (piece: Uint8Array) => void): number {
    let at = from;
    while (at < chunk.length && this.#state !== DONE) {
      if (this.#state === PLAIN || this.#state === DATA) {
        const to = Math.min(chunk.length, at + this.#remaining);
        this.#remaining -= to - at;
        if (this.#remaining === 0) this.#state = this.#state === DATA ? DATA_CR : DONE;
        content(view(chunk, at, to));
        return to;
      }
      if (this.#state === TRAILERS) return this.#readTrailers(chunk, at);
      this.#chunkLine(chunk[at]!);
      at++;
    }
    return at;
  }

  /** One byte of what stands around the data of a chunk. */
  #chunkLine(code: number): void {
    switch (this.#state) {
      case SIZE:
        this.#sizeByte(code);
        return;
      case EXTENSION_NAME:
        this.#extensionByte();
        if (TOKEN[code] === 1) this.#part++;
        else if (this.#part === 0) this.#refuse('chunk-extension');
        else if (code === EQUALS) this.#next(EXTENSION_VALUE);
        else this.#endExtension(code);
        return;
      case EXTENSION_VALUE:
        this.#extensionByte();
        if (TOKEN[code] === 1) this.#part++;
        else if (this.#part > 0) this.#endExtension(code);
        else if (code === QUOTE) this.#next(EXTENSION_QUOTED);
        else this.#refuse('chunk-extension');
        return;
      case EXTENSION_QUOTED:
        this.#extensionByte();
        if (code === QUOTE) this.#state = EXTENSION_END;
        else if (QUOTED[code] !== 1) this.#refuse('chunk-extension');
        return;
      case EXTENSION_END:
        this.#extensionByte();
        this.#endExtension(code);
        return;
      case SIZE_LF:
        if (code !== LF) this.#refuse('line-end');
        this.#endSize();
        return;
      case DATA_CR:
        if (code !== CR) this.#refuse('chunk-end');
        this.#state = DATA_LF;
        return;
      default:
        if (code !== LF) this.#refuse('chunk-end');
        this.#state = SIZE;
        this.#digits = 0;
        this.#extension = 0;
    }
  }

  #sizeByte(code: number): void {
    const digit = HEX[code]!;
    if (digit !== 255) {
      this.#digits++;
      this.#remaining = this.#remaining * 16 + digit;
      if (this.#digits > MAX_CHUNK_SIZE_DIGITS || this.#remaining > Number.MAX_SAFE_INTEGER) {
        this.#refuse('chunk-size');
      }
      return;
    }
    if (this.#digits === 0) this.#refuse('chunk-size');
    if (code === CR) this.#state = SIZE_LF;
    else if (code === SEMICOLON) {
      this.#extensionByte();
      this.#next(EXTENSION_NAME);
    } else this.#refuse(code === LF ? 'line-end' : code === SP ? 'chunk-extension' : 'chunk-size');
  }

  #endSize(): void {
    if (this.#remaining > 0) {
      this.#state = DATA;
      return;
    }
    this.#scanner ??= new SectionScanner(this.#side, undefined, {
      bytes: this.#limits.trailers,
      fields: this.#limits.trailerFields,
      tooLarge: 'trailers-too-large',
      tooMany: 'trailers-too-large',
    });
    this.#scanner.begin();
    this.#state = TRAILERS;
  }

  #next(state: number): void {
    this.#part = 0;
    this.#state = state;
  }

  /** After the name or value of an extension. */
  #endExtension(code: number): void {
    if (code === CR) this.#state = SIZE_LF;
    else if (code === SEMICOLON) this.#next(EXTENSION_NAME);
    else this.#refuse(code === LF ? 'line-end' : 'chunk-extension');
  }

  #extensionByte(): void {
    this.#extensions++;
    if (++this.#extension > MAX_CHUNK_EXTENSION || this.#extensions > MAX_CHUNK_EXTENSIONS) {
      this.#refuse('chunk-extension');
    }
  }

  #readTrailers(chunk: Uint8Array, from: number): number {
    const scanner = this.#scanner!;
    const at = scanner.push(chunk, from);
    if (at < 0) return chunk.length;
    if (scanner.marks.length > 0) {
      const trailers = new Fields(scanner.text, scanner.marks);
      for (let index = 0; index < trailers.count; index++) {
        // Each of these would say something about framing, routing or the connection after the fact.
        if (trailers.kind(index) !== known.other) this.#refuse('trailer-field');
      }
      this.trailers = trailers;
    }
    scanner.begin();
    this.#state = DONE;
    return at;
  }

  #refuse(reason: RefusalReason): never {
    throw new HttpRefusal(this.#side, reason);
  }
}

/** A plain Uint8Array: its `slice` copies, as owners expect; that of a Buffer does not. */
function view(chunk: Uint8Array, from: number, to: number): Uint8Array {
  return new Uint8Array(chunk.buffer, chunk.byteOffset + from, to - from);
}
