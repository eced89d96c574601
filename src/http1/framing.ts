import { equalsIgnoringCase } from './characters.ts';
import { type Fields, KNOWN_MASK, known, MARKS } from './fields.ts';
import { HttpRefusal, type RefusalReason, type Side } from './refusal.ts';

/**
 * How the content of a message is delimited (RFC 9112, 6.3). `none`: there cannot be any. `length`: a number of bytes,
 * which may be 0. `close`: by the end of the connection; answers only. `opaque`: what follows is another protocol.
 */
export type Framing =
  | { readonly kind: 'none' | 'chunked' | 'close' | 'opaque' }
  | { readonly kind: 'length'; readonly length: number };

export const NO_CONTENT: Framing = { kind: 'none' };
export const CHUNKED: Framing = { kind: 'chunked' };
export const UNTIL_CLOSE: Framing = { kind: 'close' };
export const OPAQUE: Framing = { kind: 'opaque' };

/** True when not one byte of content comes. */
export function isEmpty(framing: Framing): boolean {
  return framing.kind === 'none' || (framing.kind === 'length' && framing.length === 0);
}

/** What the fields say about the content, before the kind of message is looked at. */
export interface ContentFields {
  readonly chunked: boolean;
  /** Content-Length; -1 when there is none. */
  readonly length: number;
}

const MAX_LENGTH_DIGITS = 16;

/** Reads Content-Length and Transfer-Encoding; refuses everything that two readers could take in two ways. */
export function contentFields(side: Side, minor: 0 | 1, fields: Fields): ContentFields {
  const { text, marks } = fields;
  let length = -1;
  let chunked = false;
  for (let at = 0; at < marks.length; at += MARKS) {
    const kind = marks[at + 4]! & KNOWN_MASK;
    if (kind === known.contentLength) {
      if (length >= 0) refuse(side, 'length-repeated');
      length = contentLength(text, marks[at + 2]!, marks[at + 3]!);
      if (length < 0 || fields.hasTab(at / MARKS)) refuse(side, 'length-invalid');
    } else if (kind === known.transferEncoding) {
      if (chunked) refuse(side, 'coding-repeated');
      if (minor === 0) refuse(side, 'coding-version');
      const problem = codingProblem(text, marks[at + 2]!, marks[at + 3]!);
      if (problem !== undefined) refuse(side, problem);
      if (fields.hasTab(at / MARKS)) refuse(side, 'coding-not-chunked');
      chunked = true;
    }
  }
  if (chunked && length >= 0) refuse(side, 'length-and-coding');
  return { chunked, length };
}

/** Digits only, and never more than a number holds exactly; -1 for anything else, a list of equal lengths included. */
function contentLength(text: string, from: number, to: number): number {
  if (from === to || to - from > MAX_LENGTH_DIGITS) return -1;
  let length = 0;
  for (let at = from; at < to; at++) {
    const digit = text.charCodeAt(at) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    length = length * 10 + digit;
  }
  return length <= Number.MAX_SAFE_INTEGER ? length : -1;
}

/** Only `chunked` is taken: other codings would have to be undone here, as Transfer-Encoding ends at each connection. */
function codingProblem(text: string, from: number, to: number): RefusalReason | undefined {
  if (equalsIgnoringCase(text, from, to, 'chunked')) return undefined;
  const codings = text
    .slice(from, to)
    .split(',')
    .map((coding) => coding.trim().toLowerCase());
  if (codings.at(-1) !== 'chunked') return 'coding-not-chunked';
  return codings.indexOf('chunked') < codings.length - 1 ? 'coding-repeated' : 'coding-unknown';
}

function refuse(side: Side, reason: RefusalReason): never {
  throw new HttpRefusal(side, reason);
}
