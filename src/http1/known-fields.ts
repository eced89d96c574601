import { FieldNames } from './field-names.ts';
import { type KnownField, known } from './fields.ts';

const spellings: readonly (readonly [name: string, kind: KnownField])[] = [
  ['te', known.te],
  ['host', known.host],
  ['expect', known.expect],
  ['upgrade', known.upgrade],
  ['trailer', known.trailer],
  ['connection', known.connection],
  ['keep-alive', known.keepAlive],
  ['content-length', known.contentLength],
  ['proxy-connection', known.proxyConnection],
  ['transfer-encoding', known.transferEncoding],
];

/** Names of all of them. */
export const KNOWN_NAMES: FieldNames = new FieldNames(spellings.map(([name]) => name));

const LONGEST = 17;

/** By length: most fields of a request are ruled out by that alone. */
const byLength: readonly (readonly { readonly codes: Uint8Array; readonly kind: KnownField }[])[] =
  Array.from({ length: LONGEST + 1 }, (_, length) =>
    spellings
      .filter(([name]) => name.length === length)
      .map(([name, kind]) => ({ codes: Uint8Array.from(name, (each) => each.charCodeAt(0)), kind })),
  );

/** What the name in `bytes` from `from` to `to` (token characters only) is to the codec. */
export function knownField(bytes: Uint8Array, from: number, to: number): KnownField {
  const length = to - from;
  if (length > LONGEST) return known.other;
  for (const { codes, kind } of byLength[length]!) {
    let at = 0;
    // Of the token characters only letters of either case, and `-` alone, meet `codes` this way.
    while (at < length && (bytes[from + at]! | 0x20) === codes[at]) at++;
    if (at === length) return kind;
  }
  return known.other;
}
