import { CR, equalsIgnoringCase, HTAB } from './characters.ts';

/*
 * The fields of a head or of a trailer section, as they stand in its text. A section is one string, made by one copy of
 * its bytes (latin1: one character for each byte, so nothing is lost), and a flat list of positions; names and values are
 * cut out when somebody asks. That is an ordinary immutable value: it may be kept for as long as its owner likes.
 */

/** Fields that mean something to the codec itself. */
export const known = {
  other: 0,
  host: 1,
  contentLength: 2,
  transferEncoding: 3,
  connection: 4,
  upgrade: 5,
  expect: 6,
  te: 7,
  trailer: 8,
  keepAlive: 9,
  proxyConnection: 10,
} as const;
export type KnownField = (typeof known)[keyof typeof known];

/** Numbers in `marks` for each field: begin and end of its name, begin and end of its value, and `kind`. */
export const MARKS = 5;
/** Bit of `kind`: the line reads `Name: value` with CR LF exactly, and may be copied as it is. */
export const CANONICAL = 0x10;
/** The rest of `kind`: a {@link KnownField}. */
export const KNOWN_MASK = 0x0f;

/** An ordered, immutable view of fields. Names are compared without regard to case. */
export class Fields {
  /** The whole section; positions refer to it. */
  readonly text: string;
  /** {@link MARKS} numbers for each field. */
  readonly marks: readonly number[];

  constructor(text: string, marks: readonly number[]) {
    this.text = text;
    this.marks = marks;
  }

  /** Number of field lines. */
  get count(): number {
    return this.marks.length / MARKS;
  }

  /** Name of the field line `index`, as it was written. */
  rawName(index: number): string {
    const at = index * MARKS;
    return this.text.slice(this.marks[at], this.marks[at + 1]);
  }

  /** Name of the field line `index` in lower case. */
  name(index: number): string {
    return this.rawName(index).toLowerCase();
  }

  /** Value of the field line `index`, without space around it. */
  value(index: number): string {
    const at = index * MARKS;
    return this.text.slice(this.marks[at + 2], this.marks[at + 3]);
  }

  /** What the field line `index` is to the codec. */
  kind(index: number): KnownField {
    return (this.marks[index * MARKS + 4]! & KNOWN_MASK) as KnownField;
  }

  /**
   * True when a tab stands between the colon and the end of the line `index`. It is white space by the letter of RFC 9110,
   * but servers exist (node) that do not take it in fields about framing and the connection, where it is refused.
   */
  hasTab(index: number): boolean {
    const { text } = this;
    for (let at = this.marks[index * MARKS + 1]!; ; at++) {
      const code = text.charCodeAt(at);
      if (code === CR) return false;
      if (code === HTAB) return true;
    }
  }

  /** Index of the first line named `name` (lower case) from `from` on; -1 when there is none. Allocates nothing. */
  indexOf(name: string, from = 0): number {
    const { text, marks } = this;
    for (let at = from * MARKS; at < marks.length; at += MARKS) {
      if (equalsIgnoringCase(text, marks[at]!, marks[at + 1]!, name)) return at / MARKS;
    }
    return -1;
  }

  /** True when a line is named `name` (lower case). */
  has(name: string): boolean {
    return this.indexOf(name) >= 0;
  }

  /** Value of the first line named `name` (lower case). */
  get(name: string): string | undefined {
    const index = this.indexOf(name);
    return index < 0 ? undefined : this.value(index);
  }

  /** Values of all lines named `name` (lower case), in their order. */
  getAll(name: string): string[] {
    const values: string[] = [];
    for (let index = this.indexOf(name); index >= 0; index = this.indexOf(name, index + 1)) {
      values.push(this.value(index));
    }
    return values;
  }

  /** All values of `name` (lower case) as one list, joined as RFC 9110, 5.3, says; cookies by `; ` (RFC 6265, 5.4). */
  joined(name: string): string | undefined {
    const first = this.indexOf(name);
    if (first < 0) return undefined;
    if (this.indexOf(name, first + 1) < 0) return this.value(first);
    return this.getAll(name).join(name === 'cookie' ? '; ' : ', ');
  }
}

/** A section without any field. */
export const NO_FIELDS: Fields = new Fields('', []);
