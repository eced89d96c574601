import { RE2JS } from 're2js';
import { reasonOf } from '../../model/errors.ts';
import type { NamedMatch, TextMatch } from '../../model/policy.ts';

/** Longest regular expression, in characters. */
export const MAX_REGEX = 1024;
/** Instructions of a compiled one: what it costs for each character at worst. `[0-9]{100}` has about as many. */
const MAX_REGEX_PROGRAM = 512;
/**
 * Longest text that a regular expression is tried on, in characters: as long as a request line may be. A longer one does
 * not match. With {@link MAX_REGEX_PROGRAM} the worst that one test costs is about 0.2 s, and 1 ms is usual.
 */
export const MAX_REGEX_INPUT = 8 * 1024;

/** Says whether a text is meant; compiled once from a {@link TextMatch}. Undefined: there is no such text. */
export type TextMatcher = (text: string | undefined) => boolean;

/** Why this regular expression is not taken, in words; undefined when it is. */
export function regexProblem(regex: string): string | undefined {
  const compiled = compiledOrProblem(regex);
  return typeof compiled === 'string' ? compiled : undefined;
}

function compiledOrProblem(regex: string): RE2JS | string {
  if (regex.length > MAX_REGEX) return `has more than ${MAX_REGEX} characters`;
  try {
    const compiled = RE2JS.compile(regex);
    return compiled.programSize() > MAX_REGEX_PROGRAM ? 'is too large: its repetitions multiply' : compiled;
  } catch (error) {
    return `has ${reasonOf(error).replace(/^error parsing regexp: /, '')}`;
  }
}

/** Compiles a match. Expressions that {@link regexProblem} has no word against are taken; others match nothing. */
export function compileText(match: TextMatch): TextMatcher {
  switch (match.kind) {
    case 'exact':
      return (text) => text === match.value;
    case 'prefix':
      return (text) => text?.startsWith(match.value) === true;
    case 'regex':
      return compileRegex(match.value);
    case 'present':
      return (text) => text !== undefined;
    case 'absent':
      return (text) => text === undefined;
  }
}

/** A regular expression as a matcher; it matches anywhere unless anchored. Linear in the length of the text. */
function compileRegex(regex: string): TextMatcher {
  const compiled = compiledOrProblem(regex);
  if (typeof compiled === 'string') return () => false;
  return (text) => text !== undefined && text.length <= MAX_REGEX_INPUT && compiled.test(text);
}

/** Matches the texts that `text` gives for the names of these: all of them have to hold. */
export function compileNamed(
  matches: readonly NamedMatch[],
): (text: (name: string) => string | undefined) => boolean {
  const compiled = matches.map(({ name, match }) => ({ name, holds: compileText(match) }));
  return (text) => compiled.every(({ name, holds }) => holds(text(name)));
}
