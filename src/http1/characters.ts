/* Classes of bytes (RFC 9110, 5.5 and 5.6.2; RFC 3986, 2), as tables: one load for each byte that is looked at. */

function table(belongs: (code: number) => boolean): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, code) => (belongs(code) ? 1 : 0));
}

function among(text: string): (code: number) => boolean {
  return (code) => text.includes(String.fromCharCode(code));
}

const isDigit = (code: number): boolean => code >= 0x30 && code <= 0x39;
const isAlpha = (code: number): boolean => (code | 0x20) >= 0x61 && (code | 0x20) <= 0x7a;
const isTokenMark = among("!#$%&'*+-.^_`|~");
const isHostMark = among('-._~');

/** Method, field name, list member. */
export const TOKEN: Uint8Array = table((code) => isAlpha(code) || isDigit(code) || isTokenMark(code));
/** Field value and reason phrase: visible, SP, HTAB, obs-text. */
export const VALUE: Uint8Array = table((code) => code === 0x09 || (code >= 0x20 && code !== 0x7f));
/** Request target. More than RFC 3986 allows, as browsers write it (`|`, `{`), but no fragment. */
export const TARGET: Uint8Array = table((code) => code > 0x20 && code < 0x7f && code !== 0x23);
/** Name of a host, as DNS and its users write it; no percent encoding and no `sub-delims`, which nobody resolves. */
export const HOST: Uint8Array = table((code) => isAlpha(code) || isDigit(code) || isHostMark(code));
/** Inside the quotes of a chunk extension; no escapes. */
export const QUOTED: Uint8Array = table(
  (code) => VALUE[code] === 1 && code < 0x80 && code !== 0x22 && code !== 0x5c,
);

/** Value of a hexadecimal digit; 255 for any other byte. */
export const HEX: Uint8Array = Uint8Array.from({ length: 256 }, (_, code) => {
  if (isDigit(code)) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : 255;
});

export const HTAB = 0x09;
export const LF = 0x0a;
export const CR = 0x0d;
export const SP = 0x20;
export const COLON = 0x3a;

/** True when all characters of `text` from `from` to `to` belong, and there is at least one. */
export function consistsOf(text: string, from: number, to: number, characters: Uint8Array): boolean {
  if (from >= to) return false;
  for (let at = from; at < to; at++) {
    if (characters[text.charCodeAt(at)] !== 1) return false;
  }
  return true;
}

/** Compares `text` from `from` to `to` with `lower`, which is in lower case, without regard to case. */
export function equalsIgnoringCase(text: string, from: number, to: number, lower: string): boolean {
  if (to - from !== lower.length) return false;
  for (let at = 0; at < lower.length; at++) {
    const code = text.charCodeAt(from + at);
    const wanted = lower.charCodeAt(at);
    // Letters only: `^` and `~`, both legal in names, differ in the bit of the case, too.
    if (code !== wanted && (code < 0x41 || code > 0x5a || code + 0x20 !== wanted)) return false;
  }
  return true;
}

/**
 * The members of a comma-separated list, without SP and HTAB around them, in one pass. Not `trim`, which would take
 * obs-text (0xA0) away as well, and no regular expression, whose work may grow with the square of the spaces.
 */
export function listMembers(list: string, most: number): string[] {
  return list.split(',', most).map((member) => {
    let from = 0;
    let to = member.length;
    while (from < to && isSpace(member.charCodeAt(from))) from++;
    while (to > from && isSpace(member.charCodeAt(to - 1))) to--;
    return member.slice(from, to);
  });
}

function isSpace(code: number): boolean {
  return code === SP || code === HTAB;
}
