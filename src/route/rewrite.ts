import { plainPath } from '../policy/match/path.ts';
import type { RequestView } from '../policy/match/request-view.ts';

/**
 * Path and query of a request after a rewrite: `path` in the place of `prefix` (normalised, without `/` at its end), or of
 * the whole path. What stands behind the prefix stays as the caller wrote it, unless it leads out of it again (`..`): then
 * it is its normalised form that follows, so that nothing gets past the prefix.
 */
export function rewrittenPath(view: RequestView, prefix: string | undefined, path: string): string {
  const query = view.query === '' ? '' : `?${view.query}`;
  const target = plainPath(path);
  if (prefix === undefined) return target + query;
  const rest = restOf(view, prefix);
  if (rest === '') return target + query;
  return (target.endsWith('/') ? target.slice(0, -1) : target) + rest + query;
}

/** What follows the prefix: empty, or from the `/` on. */
function restOf({ rawPath, path }: RequestView, prefix: string): string {
  const normal = path.slice(prefix.length);
  if (!rawPath.startsWith(prefix)) return normal;
  const raw = rawPath.slice(prefix.length);
  if (raw === normal) return raw;
  return raw.startsWith('/') && plainPath(raw) === normal && !/\/\.{1,2}(?:\/|$)/.test(plainDots(raw))
    ? raw
    : normal;
}

/** Dots may be written as `%2e`. */
function plainDots(path: string): string {
  return path.replace(/%2e/gi, '.');
}
