import { COLON, CR, HTAB, LF, SP, TOKEN, VALUE } from './characters.ts';
import { CANONICAL, MARKS } from './fields.ts';
import type { FirstLine } from './first-line.ts';
import { knownField } from './known-fields.ts';
import { MAX_FIELDS } from './limits.ts';
import { HttpRefusal, type RefusalReason, type Side } from './refusal.ts';

/*
 * Finds the lines and fields of a head, or of a trailer section, in one pass over its bytes. A section that came in one
 * piece is read where it lies. Of one that came in several the bytes are kept together, and reading goes on where it
 * stopped: what is found, and which byte is refused, never depends on how they were cut, nor does the work.
 */

/** Bounds of one kind of section, in bytes and lines, and what is said when they are passed. */
export interface SectionBounds {
  readonly bytes: number;
  readonly fields: number;
  readonly tooLarge: RefusalReason;
  readonly tooMany: RefusalReason;
}

/** Where reading stands. The constants are inlined: this is the hottest loop of the codec. */
const FIRST_LINE = 0;
const FIELD = 1;
const NAME = 2;
const SPACE = 3;
const VALUE_REST = 4;
const VALUE_LF = 5;
const LAST_LF = 6;
const DONE = 7;

const FIRST_KEPT = 1024;

/** Positions of the section being read. One for all: it is used only while a section in one piece is read. */
const shared: number[] = Array.from({ length: MAX_FIELDS * MARKS }, () => 0);

const NONE: readonly number[] = [];

/** Reads one section after the other; `begin` before each. */
export class SectionScanner {
  readonly #side: Side;
  readonly #bounds: SectionBounds;
  #state: number = FIELD;
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

  /** Undefined for trailers, which have no first line. */
  readonly line: FirstLine | undefined;
  /** What was read: latin1, line ends included. Set when the section is complete. */
  text = '';
  /** See `fields.ts`. Set when the section is complete. */
  marks: readonly number[] = NONE;

  constructor(side: Side, line: FirstLine | undefined, bounds: SectionBounds) {
    this.#side = side;
    this.line = line;
    this.#bounds = bounds;
    if (bounds.fields > MAX_FIELDS) throw new RangeError(`more than ${MAX_FIELDS} fields`);
    this.begin();
  }

  /** Forgets what was read. */
  begin(): void {
    this.#state = this.line === undefined ? FIELD : FIRST_LINE;
    this.line?.begin();
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
      const room = Math.max(wanted, Math.min(this.#bounds.bytes, (this.#kept?.length ?? FIRST_KEPT / 2) * 2));
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
          const line = this.line!;
          i = line.read(b, base, i, to);
          if (line.done) state = FIELD;
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
}
