import { MAX_METHOD } from './limits.ts';

/**
 * Methods that are taken: those that node's parser knows, which an application behind may well be. An unknown one is
 * answered with 501 here rather than in different ways by different servers; `Http1Limits.methods` adds to them.
 */
const KNOWN = [
  'GET POST PUT HEAD DELETE OPTIONS PATCH CONNECT TRACE QUERY',
  'ACL BIND CHECKOUT COPY LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY PROPFIND PROPPATCH',
  'PURGE REBIND REPORT SEARCH SOURCE SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE',
].flatMap((line) => line.split(' '));

const byLength: readonly (readonly string[])[] = Array.from({ length: MAX_METHOD + 1 }, (_, length) =>
  KNOWN.filter((method) => method.length === length),
);

/** The method that the first `length` characters of `text` are; undefined when it is not known. Allocates nothing. */
export function knownMethod(text: string, length: number, others: ReadonlySet<string>): string | undefined {
  for (const method of byLength[length] ?? []) {
    if (text.startsWith(method)) return method;
  }
  if (others.size === 0) return undefined;
  const method = text.slice(0, length);
  return others.has(method) ? method : undefined;
}

/** Whether `text` is, or may become, a method that is known. */
export function beginsMethod(text: string): boolean {
  return KNOWN.some((method) => method.startsWith(text));
}
