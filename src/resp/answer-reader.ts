import { knownError, MAX_NAME } from './commands.ts';

/* What Redis answers: RESP2 and RESP3. No value is kept: elements are counted until an answer is complete. */

/** Elements of one aggregate, and bytes of one string: what Redis can send. */
const MAX_ELEMENTS = 2 ** 32;
const MAX_BULK = 2 ** 32;
/** Digits of a length. */
const MAX_DIGITS = 10;
/** Elements of one answer that are still to come. Far beyond what fits into a server; so that counting stays exact. */
const MAX_LEFT = 2 ** 52;

const CR = 0x0d;
const LF = 0x0a;
const SP = 0x20;
const MINUS = 0x2d;

const TYPE = 0;
const LINE = 1;
const WORD = 2;
const LENGTH = 3;
const LENGTH_LF = 4;
const BULK = 5;
const BULK_CR = 6;
const BULK_LF = 7;

/** `$` string, `!` error, `=` verbatim. */
const BULKS: ReadonlySet<number> = new Set([0x24, 0x21, 0x3d]);
/** `+` `:` `_` `,` `#` `(`: one line. `-`, an error, is one as well. */
const LINES: ReadonlySet<number> = new Set([0x2b, 0x3a, 0x5f, 0x2c, 0x23, 0x28]);
const ERROR_LINE = 0x2d;
const ERROR_BULK = 0x21;
const PUSH = 0x3e;
const ATTRIBUTE = 0x7c;
/** Values that each counted element of an aggregate is: `*` array, `~` set, `>` push; `%` map and `|` attribute in pairs. */
const VALUES_EACH: ReadonlyMap<number, number> = new Map([
  [0x2a, 1],
  [0x7e, 1],
  [PUSH, 1],
  [0x25, 2],
  [ATTRIBUTE, 2],
]);

/** Who is told of answers. */
export interface AnswerListener {
  /** An answer is complete. `failed`: all of it is an error. `pushed`: it answers nothing that was asked (RESP3). */
  answer(failed: boolean, pushed: boolean): void;
  /** An error, also one within the answer of EXEC; its first word, of a closed set. */
  error(word: string): void;
}

/** Reads the answers of a connection, in pieces of any size. */
export class AnswerReader {
  readonly #listener: AnswerListener;
  readonly #word = Buffer.allocUnsafe(MAX_NAME);
  #wordLength = 0;
  #wordDone = false;
  #state = TYPE;
  #type = 0;
  #number = 0;
  #digits = 0;
  #negative = false;
  #bytes = 0;
  /** Values of the answer that are still to come; 0 before its first byte. */
  #left = 0;
  #failed = false;
  #pushed = false;
  #stopped = false;

  constructor(listener: AnswerListener) {
    this.#listener = listener;
  }

  /** Nothing is told any more, not even of the bytes being read. */
  stop(): void {
    this.#stopped = true;
  }

  /** Answers false when these are no answers; nothing can be read any more then. */
  push(bytes: Uint8Array): boolean {
    let i = 0;
    const to = bytes.length;
    while (i < to && !this.#stopped) {
      switch (this.#state) {
        case TYPE:
          if (!this.#begin(bytes[i]!)) return false;
          i++;
          break;
        case LINE: {
          const end = bytes.indexOf(LF, i);
          if (end < 0) return true;
          i = end + 1;
          this.#valueEnds();
          break;
        }
        case WORD:
          i = this.#errorLine(bytes, i);
          break;
        case LENGTH:
          if (!this.#digit(bytes[i]!)) return false;
          i++;
          break;
        case LENGTH_LF:
          if (bytes[i] !== LF || !this.#counted()) return false;
          i++;
          break;
        case BULK:
          i = this.#bulk(bytes, i);
          break;
        case BULK_CR:
          if (bytes[i] !== CR) return false;
          this.#state = BULK_LF;
          i++;
          break;
        default:
          if (bytes[i] !== LF) return false;
          i++;
          if (this.#type === ERROR_BULK) this.#errorEnds();
          this.#valueEnds();
      }
    }
    return true;
  }

  #begin(type: number): boolean {
    this.#type = type;
    if (this.#left === 0) {
      this.#left = 1;
      this.#failed = type === ERROR_LINE || type === ERROR_BULK;
      this.#pushed = type === PUSH;
    } else if (type === PUSH) return false;
    if (LINES.has(type)) {
      this.#state = LINE;
      return true;
    }
    this.#wordLength = 0;
    this.#wordDone = false;
    if (type === ERROR_LINE) {
      this.#state = WORD;
      return true;
    }
    this.#state = LENGTH;
    this.#number = 0;
    this.#digits = 0;
    this.#negative = false;
    return BULKS.has(type) || VALUES_EACH.has(type);
  }

  #digit(byte: number): boolean {
    if (byte === CR && this.#digits > 0) {
      this.#state = LENGTH_LF;
      return true;
    }
    if (byte === MINUS && this.#digits === 0 && !this.#negative) {
      this.#negative = true;
      return true;
    }
    if (byte < 0x30 || byte > 0x39 || this.#digits === MAX_DIGITS) return false;
    this.#number = this.#number * 10 + byte - 0x30;
    this.#digits++;
    return true;
  }

  /** The length is known. -1 is a null, of strings and of arrays. */
  #counted(): boolean {
    const each = VALUES_EACH.get(this.#type);
    if (this.#negative) {
      if (this.#number !== 1) return false;
      this.#valueEnds();
      return true;
    }
    if (each === undefined) {
      if (this.#number > MAX_BULK) return false;
      this.#bytes = this.#number;
      this.#state = this.#bytes === 0 ? BULK_CR : BULK;
      return true;
    }
    this.#left += this.#number * each;
    if (this.#number > MAX_ELEMENTS || this.#left > MAX_LEFT) return false;
    // An attribute speaks of the value behind it, and is none itself.
    if (this.#type === ATTRIBUTE) this.#state = TYPE;
    else this.#valueEnds();
    return true;
  }

  #bulk(bytes: Uint8Array, from: number): number {
    const taken = Math.min(this.#bytes, bytes.length - from);
    if (this.#type === ERROR_BULK)
      for (let i = from; i < from + taken && !this.#wordDone; i++) this.#letter(bytes[i]!);
    this.#bytes -= taken;
    if (this.#bytes === 0) this.#state = BULK_CR;
    return from + taken;
  }

  #errorLine(bytes: Uint8Array, from: number): number {
    let i = from;
    while (i < bytes.length && !this.#wordDone) this.#letter(bytes[i++]!);
    if (!this.#wordDone) return i;
    this.#errorEnds();
    this.#state = LINE;
    // The line may end with its first word.
    return i - 1;
  }

  #letter(byte: number): void {
    if (byte === SP || byte === CR || byte === LF || this.#wordLength === MAX_NAME) this.#wordDone = true;
    else this.#word[this.#wordLength++] = byte;
  }

  #errorEnds(): void {
    this.#listener.error(knownError(this.#word.toString('latin1', 0, this.#wordLength)));
  }

  #valueEnds(): void {
    this.#state = TYPE;
    if (--this.#left === 0) this.#listener.answer(this.#failed, this.#pushed);
  }
}
