import { type CST, type Document, isScalar, Parser, type Scalar, visit } from 'yaml';

/** Deepest nesting of collections; the schema needs 5. */
export const MOST_DEPTH = 64;

/**
 * Offset of the first collection that stands deeper than any configuration does; undefined when there is none. To be
 * looked at before `parseDocument`: that one is recursive, and on a spent stack V8 aborts the whole process while it
 * compiles a regular expression, which nothing can catch (yaml 2.9.1, Node 20.20: 5,000 times `{a: `). The
 * parser of tokens, used here, keeps a stack of its own.
 */
export function tooDeep(text: string): number | undefined {
  let level: CST.Token[] = [...new Parser().parse(text)];
  for (let depth = 0; level.length > 0; depth++) {
    const next: CST.Token[] = [];
    for (const token of level) {
      if (token.type === 'document') {
        if (token.value !== undefined) next.push(token.value);
      } else if ('items' in token) {
        if (depth > MOST_DEPTH) return token.offset;
        for (const { key, value } of token.items) {
          if (key !== null && key !== undefined) next.push(key);
          if (value !== undefined) next.push(value);
        }
      }
    }
    level = next;
  }
  return undefined;
}

/**
 * Keys that stand again in the map that has them, at most `most`. For documents read with `uniqueKeys: false`: the
 * parser's own check compares each key with each other one (40,000 keys: 24 s). The depth has to be bounded before.
 */
export function repeatedKeys(document: Document.Parsed, most: number): readonly Scalar[] {
  const found: Scalar[] = [];
  visit(document, {
    Map(_, map) {
      const seen = new Set<unknown>();
      for (const { key } of map.items) {
        if (!isScalar(key)) continue;
        if (seen.has(key.value) && found.push(key) === most) return visit.BREAK;
        seen.add(key.value);
      }
      return undefined;
    },
  });
  return found;
}
