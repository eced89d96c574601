import { MAX_REGEX_INPUT } from './text.ts';

/*
 * What a path means. Servers read the same path in different ways: they decode `%2F` or not, drop `;parameters` or not,
 * take `//` for `/` or not. So there are two questions, and an answer to each:
 *
 * - Which path is probably meant (routes, rate limits)? `plainPath`: percent encoding normalised (RFC 3986, 6.2.2), `//`
 *   merged, dot segments removed, as nginx and Envoy (`normalize_path`, `merge_slashes`) do before they match.
 * - Which paths may be meant (access rules)? `pathReadings`: each of them. A rule that denies holds when one reading is
 *   meant by it, a rule that allows only when all are.
 *
 * All of them are in one form: a character that may stand in a segment stands there as itself, any other as `%XX` in upper
 * case. What rules say is brought to the same form once.
 */

/** Longest path whose readings are told apart where it has more than one, in characters. */
export const MAX_UNCLEAR_PATH = 1024;
/** Longest path of all that rules are asked about, in characters: regular expressions are tried on no more. */
const MAX_CLEAR_PATH = MAX_REGEX_INPUT;
/** How often a percent encoding of a percent encoding is decoded. */
const MAX_ROUNDS = 3;
/** Readings of one path; what people write has a handful. */
const MAX_READINGS = 32;

function table(characters: string): Uint8Array {
  return Uint8Array.from({ length: 128 }, (_, code) =>
    characters.includes(String.fromCharCode(code)) ? 1 : 0,
  );
}

/**
 * Characters that stand for themselves, encoded or not: `pchar` (RFC 3986, 3.3) without `;` and `+`, which some servers
 * take for more than themselves.
 */
const SELF = table("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:@!$&'()*,=");
/** Stay as they are, encoded or not. `\` is a slash to some servers. */
const AS_SENT = table('/;+\\');

const PERCENT = 0x25;
const SLASH = 0x2f;
const DOT = 0x2e;

/** The path that is probably meant: the normal form, with `//` merged and without dot segments. Never throws. */
export function plainPath(path: string): string {
  return isClear(path) ? path : withoutDots(mergeSlashes(normalForm(path)));
}

/** What servers do to a path before they look at it. */
const STEPS = [
  separators,
  decodedAgain,
  slashesForward,
  withoutParameters,
  mergeSlashes,
  withoutDots,
] as const;

/**
 * Every path that a server, or one behind another, may take this one for, in normal form; undefined where nobody knows:
 * malformed percent encoding, NUL, or too long or too tangled to tell.
 */
export function pathReadings(path: string): readonly string[] | undefined {
  if (path.length > MAX_CLEAR_PATH) return undefined;
  if (isClear(path) || !path.startsWith('/')) return [path];
  if (path.length > MAX_UNCLEAR_PATH || /%(?:00|25(?:25)*00|(?![0-9a-fA-F]{2}))/.test(path)) return undefined;
  const decoded = decodedFurther(normalForm(path));
  if (decoded === undefined) return undefined;
  const readings = new Set(decoded);
  // What is added is gone through as well: servers take these steps in any order, and more than once.
  for (const reading of readings) {
    for (const step of STEPS) readings.add(step(reading));
    if (readings.size > MAX_READINGS || reading.includes('%00')) return undefined;
  }
  return [...readings];
}

/** True for a path that is in normal form already, and that all servers read in the same way. */
function isClear(path: string): boolean {
  if (path.charCodeAt(0) !== SLASH) return false;
  for (let at = 1, before = SLASH; at < path.length; at++) {
    const code = path.charCodeAt(at);
    if (before === SLASH && (code === SLASH || code === DOT)) return false;
    if (SELF[code] !== 1 && code !== SLASH) return false;
    before = code;
  }
  return true;
}

/** Percent encoding in one form; of a malformed one the `%` is encoded. */
export function normalForm(path: string): string {
  let result = '';
  for (let at = 0; at < path.length; at++) {
    const code = path.charCodeAt(at);
    if (SELF[code] === 1 || AS_SENT[code] === 1) {
      result += path[at];
      continue;
    }
    const byte = code === PERCENT ? encodedByte(path, at) : undefined;
    if (byte !== undefined) {
      result += SELF[byte] === 1 ? String.fromCharCode(byte) : percent(byte);
      at += 2;
      continue;
    }
    const character = String.fromCodePoint(path.codePointAt(at)!);
    for (const one of Buffer.from(character)) result += percent(one);
    at += character.length - 1;
  }
  return result;
}

function encodedByte(path: string, at: number): number | undefined {
  const digits = path.slice(at + 1, at + 3);
  return /^[0-9a-fA-F]{2}$/.test(digits) ? Number.parseInt(digits, 16) : undefined;
}

function percent(byte: number): string {
  return `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
}

/** As it is; decoded once, by a server that decodes separators as well; and again, by one behind it that does so, too. */
function decodedFurther(path: string): string[] | undefined {
  const results = [path];
  let text = path;
  for (let round = 0; ; round++) {
    const next = round === 0 ? separators(text) : decodedAgain(text);
    if (next === text && round > 0) return results;
    if (round > MAX_ROUNDS) return undefined;
    results.push(next);
    text = next;
  }
}

function decodedAgain(path: string): string {
  return separators(normalForm(path.replace(/%25(?=[0-9a-fA-F]{2})/g, '%')));
}

const SEPARATORS: Readonly<Record<string, string>> = { '%2F': '/', '%5C': '\\', '%3B': ';', '%2B': '+' };

function separators(path: string): string {
  return path.replace(/%(?:2F|5C|3B|2B)/g, (code) => SEPARATORS[code]!);
}

function slashesForward(path: string): string {
  return path.replaceAll('\\', '/');
}

/** Servlet containers take `/a;x=1/b` for `/a/b`. */
function withoutParameters(path: string): string {
  return path.replace(/;[^/]*/g, '');
}

function mergeSlashes(path: string): string {
  return path.replace(/\/{2,}/g, '/');
}

/** RFC 3986, 5.2.4. */
function withoutDots(path: string): string {
  if (!path.includes('/.')) return path;
  const kept: string[] = [];
  const segments = path.split('/').slice(1);
  for (const [index, segment] of segments.entries()) {
    const isLast = index === segments.length - 1;
    if (segment === '..') kept.pop();
    else if (segment !== '.') kept.push(segment);
    if (isLast && (segment === '.' || segment === '..')) kept.push('');
  }
  return `/${kept.join('/')}`;
}
