/*
 * The little of DER (ITU-T X.690) that a certificate needs: a reader that trusts nothing, and a writer. The reader
 * never recurses, never copies and never reads past the element it was given, so hostile input costs what its
 * length costs and no more. A full ASN.1 library in every worker would be more to load and more to attack.
 */

/** Identifier octets of the elements that certificates use. */
export const tag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** Identifier octet of a context-specific element. */
export function contextTag(number: number, constructed: boolean): number {
  return 0x80 | (constructed ? 0x20 : 0) | number;
}

/** What the bytes are not; callers turn it into an error that names its source. */
export class DerError extends Error {
  override readonly name = 'DerError';
}

/** Walks the elements of one constructed value, or of a whole document. */
export class DerReader {
  readonly #bytes: Uint8Array;
  readonly #end: number;
  #at: number;

  constructor(bytes: Uint8Array, start = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
  }

  get done(): boolean {
    return this.#at >= this.#end;
  }

  /** Identifier octet of the next element; undefined at the end. */
  get next(): number | undefined {
    return this.done ? undefined : this.#bytes[this.#at];
  }

  /** The contents of the next element, as a view; it must have this identifier octet. */
  read(expected: number, what: string): Uint8Array {
    const [start, end] = this.#header(expected, what);
    this.#at = end;
    return this.#bytes.subarray(start, end);
  }

  /** A reader over the contents of the next element, which must have this identifier octet. */
  enter(expected: number, what: string): DerReader {
    const [start, end] = this.#header(expected, what);
    this.#at = end;
    return new DerReader(this.#bytes, start, end);
  }

  /** Passes over the next element when it has this identifier octet. */
  skipIf(optional: number): void {
    if (this.next === optional) this.read(optional, 'an optional element');
  }

  /** Fails unless everything was read. */
  finish(what: string): void {
    if (!this.done) throw new DerError(`${what} has bytes after its end`);
  }

  #header(expected: number, what: string): [start: number, end: number] {
    const bytes = this.#bytes;
    if (this.#end - this.#at < 2) throw new DerError(`${what} is missing`);
    if (bytes[this.#at] !== expected) throw new DerError(`${what} has an unexpected type`);
    let at = this.#at + 1;
    let length = bytes[at++]!;
    if (length > 0x7f) {
      // Long form, at most three octets (16 MB, more than any certificate), shortest encoding only.
      const octets = length & 0x7f;
      if (octets < 1 || octets > 3 || this.#end - at < octets) {
        throw new DerError(`${what} has a length that cannot be read`);
      }
      length = 0;
      for (let i = 0; i < octets; i++) length = length * 256 + bytes[at++]!;
      if (length < 0x80 || length < 256 ** (octets - 1)) {
        throw new DerError(`${what} has a length that is not in its shortest form`);
      }
    }
    if (length > this.#end - at) throw new DerError(`${what} is longer than what holds it`);
    return [at, at + length];
  }
}

/** One element: identifier octet, length, and its parts one after the other. */
export function encodeDer(identifier: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const header = [identifier];
  if (length < 0x80) header.push(length);
  else {
    const octets: number[] = [];
    for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) octets.unshift(rest % 256);
    header.push(0x80 | octets.length, ...octets);
  }
  return Buffer.concat([Uint8Array.from(header), ...parts]);
}

/** Content octets of an object identifier in dotted text; arcs may have any size (`2.25.<uuid>` has 128 bits). */
export function encodeOid(dotted: string): Uint8Array {
  const arcs = dotted.split('.').map((arc) => BigInt(arc));
  const octets: number[] = [];
  for (const arc of [arcs[0]! * 40n + arcs[1]!, ...arcs.slice(2)]) {
    const group = [Number(arc & 0x7fn)];
    for (let rest = arc >> 7n; rest > 0n; rest >>= 7n) group.unshift(Number(rest & 0x7fn) | 0x80);
    octets.push(...group);
  }
  return Uint8Array.from(octets);
}

/** True when two byte strings are the same. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}
