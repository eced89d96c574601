/** Parameters of a query that are looked at. */
const MAX_QUERY_PARAMETERS = 256;
/** Cookies that are looked at. */
const MAX_COOKIES = 256;

/**
 * Value of the first cookie of this name in a Cookie field (RFC 6265, 5.4), as it stands, without quotes around it.
 * Servers differ on which of two counts; most take the first, which is the one with the longest path.
 */
export function cookieOf(field: string | undefined, name: string): string | undefined {
  if (field === undefined) return undefined;
  for (const pair of pairs(field, ';', MAX_COOKIES)) {
    const at = pair.indexOf('=');
    if (at < 0 || pair.slice(0, at).trim() !== name) continue;
    const value = pair.slice(at + 1).trim();
    const quoted = value.length >= 2 && value.startsWith('"') && value.endsWith('"');
    return quoted ? value.slice(1, -1) : value;
  }
  return undefined;
}

/**
 * Value of the first parameter of this name in a query, decoded as forms are: `+` is a space, and what is no percent
 * encoding of UTF-8 stays as it is. One without `=` has an empty value.
 */
export function parameterOf(query: string, name: string): string | undefined {
  if (query === '') return undefined;
  for (const pair of pairs(query, '&', MAX_QUERY_PARAMETERS)) {
    const at = pair.indexOf('=');
    const key = at < 0 ? pair : pair.slice(0, at);
    if (pair !== '' && decoded(key) === name) return at < 0 ? '' : decoded(pair.slice(at + 1));
  }
  return undefined;
}

function pairs(text: string, separator: string, most: number): readonly string[] {
  return text.split(separator, most);
}

function decoded(text: string): string {
  const spaced = text.includes('+') ? text.replaceAll('+', ' ') : text;
  if (!spaced.includes('%')) return spaced;
  try {
    return decodeURIComponent(spaced);
  } catch {
    return spaced;
  }
}
