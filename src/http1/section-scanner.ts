import { COLON, CR, HTAB, LF, SP, TARGET, TOKEN, VALUE } from './characters.ts';
import { CANONICAL, MARKS } from './fields.ts';
import { knownField } from './known-fields.ts';
import { MAX_FIELDS, MAX_METHOD } from './limits.ts';
import { HttpRefusal, type RefusalReason, type Side } from './refusal.ts';

/*
 * Finds the lines and fields of a head, or of a trailer section, in one pass over its bytes. A section that came in one
 * piece is read where it lies. Of one that came in several the bytes are kept together, and reading goes on where it
 * stopped: what is found, and which byte is refused, never depends on how they were cut, nor does the work.
 */

/** What a section begins with; trailers have no first line. */
export type FirstLine = Side | 'none';

/** Bounds of one kind of section, in bytes and lines, and what is said when they are passed. */
export interface SectionBounds {
  readonly startLine: number;
  readonly bytes: number;
  readonly fields: number;
  readonly tooLarge: RefusalReason;
  readonly tooMany: RefusalReason;
}

/** Where reading stands. The constants are inlined: this is the hottest loop of the codec. */
const METHOD = 0;
const TARGET_START = 1;
const TARGET_REST = 2;
const VERSION = 3;
const AFTER_VERSION = 4;
const STATUS = 5;
const AFTER_STATUS = 6;
const REASON = 7;
const LINE_LF = 8;
const FIELD = 9;
const NAME = 10;
const SPACE = 11;
const VALUE_REST = 12;
const VALUE_LF = 13;
const LAST_LF = 14;
const DONE = 15;

const HTTP_1 = Uint8Array.from('HTTP/1.', (each) => each.charCodeAt(0));
const FIRST_KEPT = 1024;

/** Positions of the section being read. One for all: it is used only while a section in one piece is read. */
const shared: number[] = Array.from({ length: MAX_FIELDS * MARKS }, () => 0);

const NONE: readonly number[] = [];

/** Reads one section after the other; `begin` before each. */
export class SectionScanner {
  readonly #side: Side;
  readonly #first: FirstLine;
  readonly #bounds: SectionBounds;
  #state: number = METHOD;
  /** Position from the beginning of the section. */
  #at = 0;
  /** Where the token, line or value being read begins. */
  #start = 0;
  #valueStart = 0;
  #kind = 0;
  #marks: number[] = shared;
  #used = 0;
  /** The section so far, if it came in pieces. */
  #kept: Buffer | undefined;
  #keptLength = 0;

  /** End of the method, or begin of the status. */
  firstEnd = 0;
  /** End of the request target, or of the reason. */
  secondEnd = 0;
  minor: 0 | 1 = 1;
  /** What was read: latin1, line ends included. Set when the section is complete. */
  text = '';
  /** See `fields.ts`. Set when the section is complete. */
  marks: readonly number[] = NONE;

  constructor(side: Side, first: FirstLine, bounds: SectionBounds) {
    this.#side = side;
    this.#first = first;
    this.#bounds = bounds;
    if (bounds.fields > MAX_FIELDS) throw new RangeError(`more than ${MAX_FIELDS} fields`);
    this.begin();
  }

  /** Forgets what was read. */
  begin(): void {
    this.#state = this.#first === 'request' ? METHOD : this.#first === 'response' ? VERSION : FIELD;
    this.#at = 0;
    this.#start = 0;
    this.#used = 0;
    this.#marks = shared;
    this.#kept = undefined;
    this.#keptLength = 0;
    this.text = '';
    this.marks = NONE;
  }

  /** True when a byte of the section has come. */
  get begun(): boolean {
    return this.#at > 0;
  }

  /**
   * Reads `chunk` from `from` on. Returns the index after the section, or -1 when all of the chunk was taken and more
   * is needed. Throws an {@link HttpRefusal}.
   */
  push(chunk: Uint8Array, from: number): number {
    if (this.#kept === undefined) {
      this.#run(chunk, from, chunk.length - from);
      if (this.#state === DONE) {
        this.#finish(chunk, from);
        return from + this.#at;
      }
      this.#keep(chunk, from);
      return -1;
    }
    const before = this.#at;
    this.#keep(chunk, from);
    this.#run(this.#kept, 0, this.#keptLength);
    if (this.#state !== DONE) return -1;
    this.#finish(this.#kept, 0);
    this.#kept = undefined;
    return from + this.#at - before;
  }

  #finish(bytes: Uint8Array, base: number): void {
    this.text = Buffer.prototype.latin1Slice.call(bytes, base, base + this.#at);
    this.marks = this.#marks.slice(0, this.#used);
    this.#marks = shared;
  }

  /** Adds a chunk to what is kept: as much of it as the section can have. */
  #keep(chunk: Uint8Array, from: number): void {
    const take = Math.min(chunk.length - from, this.#bounds.bytes - this.#keptLength);
    const wanted = this.#keptLength + take;
    if (this.#kept === undefined || wanted > this.#kept.length) {
      const room = Math.max(FIRST_KEPT, wanted, (this.#kept?.length ?? 0) * 2);
      const grown = Buffer.allocUnsafe(room);
      if (this.#kept === undefined) this.#marks = shared.slice(0, this.#used + MARKS);
      else grown.set(this.#kept.subarray(0, this.#keptLength));
      this.#kept = grown;
    }
    this.#kept.set(chunk.subarray(from, from + take), this.#keptLength);
    this.#keptLength = wanted;
  }

  #refuse(reason: RefusalReason): never {
    throw new HttpRefusal(this.#side, reason);
  }

  /** Reads on in `b`, in which the section begins at `base` and of which `have` bytes of it are there. */
  #run(b: Uint8Array, base: number, have: number): void {
    const bounds = this.#bounds;
    const to = base + Math.min(have, bounds.bytes);
    let i = base + this.#at;
    let state = this.#state;
    let start = base + this.#start;
    while (i < to && state !== DONE) {
      switch (state) {
        case NAME: {
          while (i < to && TOKEN[b[i]!] === 1) i++;
          if (i === to) break;
          if (b[i] !== COLON) this.#refuse(b[i] === LF ? 'line-end' : 'field-name');
          if (i === start) this.#refuse('field-name');
          this.#kind = knownField(b, start, i);
          const marks = this.#marks;
          marks[this.#used] = start - base;
          marks[this.#used + 1] = i - base;
          this.#valueStart = i + 1 - base;
          i++;
          state = SPACE;
          break;
        }
        case SPACE: {
          while (i < to && (b[i] === SP || b[i] === HTAB)) i++;
          if (i === to) break;
          this.#valueStart = i - base;
          state = VALUE_REST;
          break;
        }
        case VALUE_REST: {
          while (i < to && VALUE[b[i]!] === 1) i++;
          if (i === to) break;
          if (b[i] !== CR) this.#refuse(b[i] === LF ? 'line-end' : 'field-value');
          i++;
          state = VALUE_LF;
          break;
        }
        case VALUE_LF: {
          if (b[i] !== LF) this.#refuse('line-end');
          this.#endField(b, base, i - 1);
          i++;
          state = FIELD;
          break;
        }
        case FIELD: {
          const code = b[i];
          if (code === CR) {
            i++;
            state = LAST_LF;
            break;
          }
          if (code === SP || code === HTAB) this.#refuse('obs-fold');
          if (this.#used === bounds.fields * MARKS) this.#refuse(bounds.tooMany);
          start = i;
          state = NAME;
          break;
        }
        case LAST_LF: {
          if (b[i] !== LF) this.#refuse('line-end');
          i++;
          state = DONE;
          break;
        }
        default: {
          this.#at = i - base;
          this.#start = start - base;
          this.#state = state;
          i = base + this.#firstLine(b, base, to);
          state = this.#state;
          start = base + this.#start;
        }
      }
    }
    this.#at = i - base;
    this.#start = start - base;
    this.#state = state;
    if (state !== DONE && this.#at >= bounds.bytes) this.#refuse(bounds.tooLarge);
  }

  /** Writes the field down whose line ends (CR) at `end`. */
  #endField(b: Uint8Array, base: number, end: number): void {
    const marks = this.#marks;
    const used = this.#used;
    const from = base + this.#valueStart;
    let to = end;
    while (to > from && (b[to - 1] === SP || b[to - 1] === HTAB)) to--;
    const colon = base + marks[used + 1]!;
    const canonical = to === end && from === colon + 2 && b[colon + 1] === SP;
    marks[used + 2] = from - base;
    marks[used + 3] = to - base;
    marks[used + 4] = canonical ? this.#kind | CANONICAL : this.#kind;
    this.#used = used + MARKS;
  }

  /** Reads one part of the first line, or as much of it as is there; returns the position after it. */
  #firstLine(b: Uint8Array, base: number, to: number): number {
    let i = base + this.#at;
    const start = base + this.#start;
    // One more than the bound is looked at: that byte is the one which is refused.
    const last = Math.min(to, base + this.#bounds.startLine + 1);
    switch (this.#state) {
      case METHOD: {
        while (i < to && TOKEN[b[i]!] === 1 && i - start <= MAX_METHOD) i++;
        if (i === to) break;
        if (i - start > MAX_METHOD) this.#refuse('method-unknown');
        if (b[i] !== SP || i === start) this.#refuse('request-line');
        this.firstEnd = i - base;
        i++;
        this.#state = TARGET_START;
        break;
      }
      case TARGET_START: {
        if (TARGET[b[i]!] !== 1) this.#refuse('request-line');
        this.#state = TARGET_REST;
        break;
      }
      case TARGET_REST: {
        while (i < last && TARGET[b[i]!] === 1) i++;
        if (i - base > this.#bounds.startLine) this.#refuse('start-line-too-long');
        if (i === to) break;
        if (b[i] !== SP) this.#refuse(b[i] === CR || b[i] === LF ? 'request-line' : 'target-invalid');
        this.secondEnd = i - base;
        i++;
        this.#start = i - base;
        this.#state = VERSION;
        break;
      }
      case VERSION: {
        i = this.#version(b, i, start, to);
        break;
      }
      case AFTER_VERSION: {
        if (this.#first === 'request') {
          if (b[i] !== CR) this.#refuse(b[i] === LF ? 'line-end' : 'request-line');
          this.#state = LINE_LF;
        } else {
          if (b[i] !== SP) this.#refuse('status-line');
          this.firstEnd = i + 1 - base;
          this.#start = i + 1 - base;
          this.#state = STATUS;
        }
        i++;
        break;
      }
      case STATUS: {
        // The first digit is not 0: there is no such class (RFC 9110, 15).
        const least = i === start ? 0x31 : 0x30;
        if (b[i]! < least || b[i]! > 0x39) this.#refuse('status-line');
        i++;
        if (i - start === 3) this.#state = AFTER_STATUS;
        break;
      }
      case AFTER_STATUS: {
        // Servers exist that leave out the space before a reason that is empty.
        this.secondEnd = i - base;
        if (b[i] === CR) this.#state = LINE_LF;
        else if (b[i] === SP) this.#state = REASON;
        else this.#refuse('status-line');
        i++;
        break;
      }
      case REASON: {
        while (i < last && VALUE[b[i]!] === 1) i++;
        if (i - base > this.#bounds.startLine) this.#refuse('status-line');
        if (i === to) break;
        if (b[i] !== CR) this.#refuse(b[i] === LF ? 'line-end' : 'status-line');
        this.secondEnd = i - base;
        i++;
        this.#state = LINE_LF;
        break;
      }
      case LINE_LF: {
        if (b[i] !== LF) this.#refuse('line-end');
        i++;
        this.#state = FIELD;
        break;
      }
    }
    return i - base;
  }

  /** `HTTP/1.` and 0 or 1. Another number is a version, anything else is nonsense. */
  #version(b: Uint8Array, from: number, start: number, to: number): number {
    let i = from;
    while (i < to && i - start < HTTP_1.length && b[i] === HTTP_1[i - start]) i++;
    if (i === to) return i;
    const code = b[i]!;
    const place = i - start;
    const isDigit = code >= 0x30 && code <= 0x39;
    if (place !== HTTP_1.length || (code !== 0x30 && code !== 0x31)) {
      if (isDigit && (place === 5 || place === HTTP_1.length)) this.#refuse('version-unsupported');
      this.#refuse(this.#first === 'request' ? 'request-line' : 'status-line');
    }
    this.minor = code === 0x31 ? 1 : 0;
    this.#state = AFTER_VERSION;
    return i + 1;
  }
}
