import type { TextMatch } from '../../model/policy.ts';
import { plainPath } from './path.ts';
import { compileText, type TextMatcher } from './text.ts';

/**
 * Compiles the match of a path, to be asked about paths in normal form (`path.ts`). Exact values and prefixes are brought
 * to that form; a prefix ends at a segment, with or without a `/` at its end. Regular expressions see the normal form.
 */
export function compilePath(match: TextMatch): TextMatcher {
  if (match.kind === 'exact') return compileText({ kind: 'exact', value: plainPath(match.value) });
  if (match.kind !== 'prefix') return compileText(match);
  const prefix = pathPrefix(match.value);
  return (path) =>
    path?.startsWith(prefix) === true && (path.length === prefix.length || path[prefix.length] === '/');
}

/** A prefix as paths are compared with it: in normal form, without `/` at its end; empty for `/`. */
export function pathPrefix(value: string): string {
  const plain = plainPath(value);
  return plain.endsWith('/') ? plain.slice(0, -1) : plain;
}
