import type { z } from 'zod';
import { MOST_PROBLEMS } from './document.ts';
import { describeType, type JsonSchema, schemaAt } from './keys.ts';
import { nearest } from './problem.ts';

type Issue = z.core.$ZodIssue;

/** A problem before it is known where it stands. */
export interface Finding {
  readonly path: readonly PropertyKey[];
  /** Set when the key itself is the problem: the last part of `path`. */
  readonly aboutKey: boolean;
  readonly found: string;
  readonly expected: string;
  readonly hint?: string;
}

/** What an issue says to people: `root` is the value that was checked, `whole` its schema. */
export function explain(issue: Issue, root: unknown, whole: JsonSchema): readonly Finding[] {
  const path = writtenPath(issue.path, root);
  if (issue.code === 'unrecognized_keys') {
    const known = Object.keys(schemaAt(issue.path, root, whole)?.properties ?? {});
    return issue.keys.slice(0, MOST_PROBLEMS).map((key) => {
      const meant = nearest(key, known);
      return {
        path: [...path, key],
        aboutKey: true,
        found: 'a key that is not known',
        expected: listed(known),
        ...(meant === undefined ? {} : { hint: `did you mean ${meant}?` }),
      };
    });
  }
  if (issue.code === 'invalid_key') {
    const expected = /^expected (.+)$/s.exec(issue.issues[0]?.message ?? '')?.[1] ?? 'another name';
    return [{ path, aboutKey: true, found: describeValue(path.at(-1), issue), expected }];
  }
  const value = valueAt(root, path);
  const schema = schemaAt(issue.path, root, whole);
  const custom = /^expected (.+)$/s.exec(issue.message)?.[1];
  return [
    {
      path,
      aboutKey: false,
      found: describeValue(value, issue),
      expected: expectedOf(issue, custom, schema === undefined ? undefined : describeType(schema)),
    },
  ];
}

function expectedOf(issue: Issue, custom: string | undefined, type: string | undefined): string {
  if (custom !== undefined) return custom;
  if ((issue.code === 'too_big' || issue.code === 'too_small') && issue.origin === 'array') {
    return issue.code === 'too_big'
      ? `at most ${issue.maximum} entries`
      : `at least ${issue.minimum} entries`;
  }
  if (issue.code === 'invalid_union' && 'options' in issue) return (issue.options as string[]).join(' or ');
  return type ?? issue.message;
}

function listed(names: readonly string[]): string {
  return names.length === 0 ? 'no keys here' : `one of ${names.join(', ')}`;
}

/**
 * The path as the text has it: where one thing stands for a list of one, or a plain value for a map, the schema's own
 * path goes on.
 */
function writtenPath(path: readonly PropertyKey[], root: unknown): readonly PropertyKey[] {
  const written: PropertyKey[] = [];
  let value = root;
  for (const part of path) {
    if (typeof value !== 'object' && value !== undefined) break;
    if (typeof part === 'number' && !Array.isArray(value)) continue;
    written.push(part);
    value =
      typeof value === 'object' && value !== null && Object.hasOwn(value, part)
        ? (value as Record<PropertyKey, unknown>)[part]
        : undefined;
  }
  return written;
}

function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  let value = root;
  for (const part of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[part];
  }
  return value;
}

/** A value as a message shows it: its kind and, where short, itself. */
function describeValue(value: unknown, issue: Issue): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'an empty value';
  if (Array.isArray(value)) {
    return issue.code === 'too_big' || issue.code === 'too_small' ? `${value.length} entries` : 'a list';
  }
  switch (typeof value) {
    case 'object':
      return 'a map';
    case 'string':
      return `text ${JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)}`;
    case 'number':
      return `number ${value}`;
    default:
      return String(value);
  }
}
