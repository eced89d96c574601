import type { RequestMatch } from '../../model/policy.ts';
import { compileCallers } from './caller.ts';
import { compilePath } from './path-matcher.ts';
import type { RequestView } from './request-view.ts';
import { compileNamed } from './text.ts';

/** Says whether a request is meant. */
export type RequestMatcher = (view: RequestView) => boolean;

/** Compiles a match: all that it names has to hold. Cheap conditions are asked first. */
export function compileRequest(match: RequestMatch): RequestMatcher {
  const conditions: RequestMatcher[] = [];
  const { methods, path, headers, cookies, query, callers } = match;
  if (methods !== undefined) {
    const meant = new Set(methods);
    conditions.push((view) => meant.has(view.method));
  }
  if (callers !== undefined) {
    const isMeant = compileCallers(callers);
    conditions.push((view) => isMeant(view.caller));
  }
  if (path !== undefined) {
    const isMeant = compilePath(path);
    conditions.push((view) => isMeant(view.path));
  }
  if (headers !== undefined) {
    const hold = compileNamed(headers);
    conditions.push((view) => hold((name) => view.header(name)));
  }
  if (cookies !== undefined) {
    const hold = compileNamed(cookies);
    conditions.push((view) => hold((name) => view.cookie(name)));
  }
  if (query !== undefined) {
    const hold = compileNamed(query);
    conditions.push((view) => hold((name) => view.parameter(name)));
  }
  return (view) => conditions.every((holds) => holds(view));
}

/** One of them has to hold; where none is named, every request is meant. */
export function compileRequests(matches: readonly RequestMatch[]): RequestMatcher {
  const matchers = matches.map(compileRequest);
  return matchers.length === 0 ? () => true : (view) => matchers.some((matches) => matches(view));
}
