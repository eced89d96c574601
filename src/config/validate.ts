import type { z } from 'zod';
import { describeType, jsonSchema, schemaAt } from './keys.ts';
import { nearest } from './problem.ts';
import { type Config, configSchema } from './schema.ts';

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

/** Checks a plain value against the schema; either the complete configuration or everything that is wrong. */
export function validate(
  value: unknown,
): { readonly config: Config } | { readonly findings: readonly Finding[] } {
  const filled = fillEmptySections(value);
  const result = configSchema.safeParse(filled);
  if (!result.success) return { findings: result.error.issues.flatMap((issue) => explain(issue, filled)) };
  return { config: deepFreeze(result.data) };
}

/** A section whose keys are all commented out reads as null; it means the defaults. */
function fillEmptySections(value: unknown): unknown {
  if (value === null || value === undefined) return {};
  if (typeof value !== 'object' || Array.isArray(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, section]) => [
      name,
      section === null && Object.hasOwn(jsonSchema.properties!, name)
        ? jsonSchema.properties![name]!.type === 'array'
          ? []
          : {}
        : section,
    ]),
  );
}

function explain(issue: Issue, root: unknown): readonly Finding[] {
  const { path } = issue;
  if (issue.code === 'unrecognized_keys') {
    const known = Object.keys(schemaAt(path, root)?.properties ?? {});
    return issue.keys.map((key) => {
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
  const value = valueAt(root, path);
  const schema = schemaAt(path, root);
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

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const child of Object.values(value)) deepFreeze(child);
    Object.freeze(value);
  }
  return value;
}
