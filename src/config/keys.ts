import { z } from 'zod';
import { configSchema } from './schema.ts';

/** The parts of JSON Schema that zod writes for our schema. */
export interface JsonSchema {
  readonly type?: string;
  readonly title?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  /** Of a map whose keys the operator names. */
  readonly additionalProperties?: JsonSchema | boolean;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
}

/** JSON Schema of the file as an operator writes it. */
export const jsonSchema = z.toJSONSchema(configSchema, { io: 'input' }) as JsonSchema;

/** A key with one plain value; environment variables and flags can set these. */
export interface ScalarKey {
  readonly path: readonly string[];
  readonly variable: string;
  readonly schema: JsonSchema;
}

const SCALARS: ReadonlySet<string | undefined> = new Set(['string', 'integer', 'number', 'boolean']);

function isScalar(schema: JsonSchema): boolean {
  return schema.anyOf === undefined ? SCALARS.has(schema.type) : schema.anyOf.every(isScalar);
}

/** `zoneAgent.maxHops` → `MESH_NODE_ZONE_AGENT_MAX_HOPS`. */
function variableOf(path: readonly string[]): string {
  const words = path.map((part) => part.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase());
  return `MESH_NODE_${words.join('_')}`;
}

function collect(schema: JsonSchema, path: readonly string[], into: ScalarKey[]): ScalarKey[] {
  for (const [name, child] of Object.entries(schema.properties ?? {})) {
    const at = [...path, name];
    if (child.properties !== undefined) collect(child, at, into);
    else if (isScalar(child)) into.push({ path: at, variable: variableOf(at), schema: child });
  }
  return into;
}

/** Every key that an environment variable or flag can set, in the order of the schema. */
export const scalarKeys: readonly ScalarKey[] = collect(jsonSchema, [], []);

/** What a value of this schema looks like, for messages and tables: `integer 1–65535`, `services, all or off`. */
export function describeType(schema: JsonSchema): string {
  const alternatives = schema.anyOf ?? schema.oneOf;
  if (alternatives !== undefined) return anyOf(alternatives.map(describeType));
  if (schema.enum !== undefined) return anyOf(schema.enum.map(String));
  if (schema.const !== undefined) return String(schema.const);
  if (schema.title !== undefined) return schema.title;
  switch (schema.type) {
    case 'integer':
      return `integer ${schema.minimum}–${schema.maximum}`;
    case 'array':
      return schema.items === undefined ? 'list' : `list of ${describeType(schema.items)}`;
    case 'object':
      return schema.properties?.['type']?.const === undefined
        ? 'map'
        : `map with type ${schema.properties['type'].const}`;
    case 'string':
      return 'text';
    default:
      return schema.type ?? 'value';
  }
}

function anyOf(names: readonly string[]): string {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
}

/**
 * The schema at a path of a value; undefined where the schema knows no such key. In a list of alternatives the
 * one with the value's own `type` is taken.
 */
export function schemaAt(
  path: readonly PropertyKey[],
  value: unknown,
  whole: JsonSchema,
): JsonSchema | undefined {
  let schema: JsonSchema | undefined = whole;
  let current = value;
  for (const part of path) {
    schema = alternative(schema, current);
    schema =
      typeof part === 'number'
        ? schema?.items
        : (own(schema?.properties, String(part)) ?? recordOf(schema?.additionalProperties));
    current = typeof current === 'object' && current !== null ? own(current, part) : undefined;
    if (schema === undefined) return undefined;
  }
  return alternative(schema, current);
}

function alternative(schema: JsonSchema | undefined, value: unknown): JsonSchema | undefined {
  if (schema?.oneOf === undefined || typeof value !== 'object' || value === null) return schema;
  const type = own(value, 'type');
  return schema.oneOf.find((one) => one.properties?.['type']?.const === type) ?? schema;
}

function recordOf(schema: JsonSchema | boolean | undefined): JsonSchema | undefined {
  return typeof schema === 'object' ? schema : undefined;
}

function own<T>(holder: Readonly<Record<string, T>> | undefined, key: string): T | undefined;
function own(holder: object, key: PropertyKey): unknown;
function own(holder: object | undefined, key: PropertyKey): unknown {
  return holder !== undefined && Object.hasOwn(holder, key)
    ? (holder as Record<PropertyKey, unknown>)[key]
    : undefined;
}
