import {
  type Document,
  isAlias,
  isCollection,
  isMap,
  isScalar,
  LineCounter,
  type Node,
  parseAllDocuments,
  parseDocument,
} from 'yaml';
import { MOST_DEPTH, repeatedKeys, tooDeep } from './nesting.ts';
import type { ConfigProblem } from './problem.ts';

/** Most bytes of a configuration file: the largest sensible one (256 zones with 64 gateways each) has 1 MiB. */
export const MOST_CONFIG_BYTES = 2 * 1024 * 1024;
/** Most times that YAML aliases may be followed; each one multiplies what a small file unfolds to. */
const MOST_ALIASES = 100;
/** Problems that are listed of one file: after some, the rest follows from the first. */
export const MOST_PROBLEMS = 20;

/** Where a value stands in its text. */
interface Place {
  readonly line: number;
  readonly column: number;
}

/** A parsed file: its plain value, and the way back from a path to line and column. */
export interface ConfigDocument {
  readonly value: unknown;
  /** Place of the value at this path, or of the nearest one above that exists. */
  placeOf(path: readonly PropertyKey[]): Place;
  /** Place of a key in the map at this path. */
  placeOfKey(path: readonly PropertyKey[], key: string): Place;
}

/** What keeps a text from being read. */
interface Unreadable {
  readonly problems: readonly ConfigProblem[];
}

/** Reads YAML strictly; the problems tell everything that keeps the text from being one plain value. */
export function readDocument(origin: string, bytes: Uint8Array): ConfigDocument | Unreadable {
  const read = readAll(origin, bytes, (text, options) => [parseDocument(text, options)]);
  return 'problems' in read ? read : read.documents[0]!;
}

/** As {@link readDocument}, for a text of several documents with `---` between them; without content there is none. */
export function readDocuments(
  origin: string,
  bytes: Uint8Array,
): { readonly documents: readonly ConfigDocument[] } | Unreadable {
  return readAll(origin, bytes, (text, options) => parseAllDocuments(text, options) as Document.Parsed[]);
}

function readAll(
  origin: string,
  bytes: Uint8Array,
  parse: (text: string, options: Parameters<typeof parseDocument>[1]) => readonly Document.Parsed[],
): { readonly documents: readonly ConfigDocument[] } | Unreadable {
  const wrong = (found: string, expected: string, place?: Place, hint?: string) => ({
    problems: [
      { origin, ...place, path: '', found, expected, ...(hint === undefined ? {} : { hint }) },
    ] as const,
  });
  if (bytes.length > MOST_CONFIG_BYTES) {
    return wrong(`${bytes.length} bytes`, `at most ${MOST_CONFIG_BYTES}`);
  }
  const text = decode(bytes);
  if (typeof text !== 'string') return wrong('bytes that are not UTF-8', 'a text file in UTF-8', text);
  const lines = new LineCounter();
  const place = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  const deep = tooDeep(text);
  if (deep !== undefined) {
    const before = text.slice(0, deep);
    const where = { line: before.split('\n').length, column: deep - before.lastIndexOf('\n') };
    return wrong('deeper nesting', `at most ${MOST_DEPTH} levels`, where);
  }
  try {
    const parsed = parse(text, {
      version: '1.2',
      schema: 'core',
      merge: false,
      stringKeys: true,
      // repeatedKeys does it, at a cost that follows the size.
      uniqueKeys: false,
      prettyErrors: false,
      lineCounter: lines,
      // With 'silent' a second document would be dropped without an error.
      logLevel: 'error',
    });
    const faults = parsed.flatMap(({ errors, warnings }) => [...errors, ...warnings]);
    if (faults.length > 0) {
      return {
        problems: faults.slice(0, MOST_PROBLEMS).map((fault) => ({
          origin,
          ...place(fault.pos[0]),
          path: '',
          found: excerpt(text.slice(fault.pos[0], fault.pos[1])),
          expected: expectation(fault.code, fault.message),
        })),
      };
    }
    const twice = parsed.flatMap((document) => repeatedKeys(document, MOST_PROBLEMS)).slice(0, MOST_PROBLEMS);
    if (twice.length > 0) {
      return {
        problems: twice.map(({ range, value: key }) => ({
          origin,
          ...place(range?.[0] ?? 0),
          path: '',
          found: `${excerpt(String(key))} again`,
          expected: 'each key once',
        })),
      };
    }
    return { documents: parsed.map((document) => plain(document, place)) };
  } catch (error) {
    // toJS throws a ReferenceError for too many or dangling aliases; the parser throws nothing else by design.
    return wrong('YAML that cannot be read', 'plain YAML', { line: 1, column: 1 }, (error as Error).message);
  }
}

function plain(document: Document.Parsed, place: (offset: number) => Place): ConfigDocument {
  return {
    value: document.toJS({ maxAliasCount: MOST_ALIASES }),
    placeOf: (path) => place(nodeAt(document, path).node?.range?.[0] ?? document.range[0]),
    placeOfKey: (path, key) => {
      const { node } = nodeAt(document, path);
      if (isMap(node)) {
        for (const pair of node.items) {
          if (isScalar(pair.key) && pair.key.value === key) return place(pair.key.range?.[0] ?? 0);
        }
      }
      return place(node?.range?.[0] ?? document.range[0]);
    },
  };
}

function nodeAt(document: Document.Parsed, path: readonly PropertyKey[]): { readonly node: Node | null } {
  let node: Node | null = document.contents;
  for (const part of path) {
    if (isAlias(node)) node = node.resolve(document) ?? null;
    if (!isCollection(node)) break;
    const child: unknown = node.get(part, true);
    if (child === undefined || child === null) break;
    node = child as Node;
  }
  return { node };
}

/** The text, or the place of the first byte that is not UTF-8. A byte order mark is dropped. */
function decode(bytes: Uint8Array): string | Place {
  const strict = new TextDecoder('utf-8', { fatal: true });
  try {
    return strict.decode(bytes);
  } catch {
    // 0x0a never occurs inside a UTF-8 sequence, so lines can be looked at one by one.
    let start = 0;
    for (let line = 1; start <= bytes.length; line++) {
      const found = bytes.indexOf(0x0a, start);
      const end = found === -1 ? bytes.length : found;
      try {
        new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(start, end));
      } catch {
        const readable = new TextDecoder('utf-8').decode(bytes.subarray(start, end));
        return { line, column: readable.indexOf('\ufffd') + 1 };
      }
      start = end + 1;
    }
    return { line: 1, column: 1 };
  }
}

/** What stands in the text, short enough for a message. */
function excerpt(text: string): string {
  const first = text.split('\n', 1)[0]!.trim();
  if (first === '') return 'nothing';
  return JSON.stringify(first.length > 40 ? `${first.slice(0, 40)}…` : first);
}

function expectation(code: string, message: string): string {
  switch (code) {
    case 'TAB_AS_INDENT':
      return 'spaces for indentation, not tabs';
    case 'MULTIPLE_DOCS':
      return 'one document';
    case 'BAD_ALIAS':
      return 'valid YAML: an alias has a name behind its *; a text that begins with * stands in quotes';
    case 'TAG_RESOLVE_FAILED':
      return 'plain YAML without tags';
    default:
      return `valid YAML: ${message.split('\n', 1)[0]}`;
  }
}
