import { type JsonSchema, type ScalarKey, scalarKeys } from './keys.ts';
import { type ConfigProblem, nearest } from './problem.ts';

/** The one variable with the prefix that is no key: path of the configuration file, like `--config`. */
export const CONFIG_VARIABLE = 'MESH_NODE_CONFIG';
const PREFIX = 'MESH_NODE_';

/** A value that replaces one of the file. */
export interface Override {
  /** Name of the variable or text of the flag, for messages. */
  readonly origin: string;
  readonly path: readonly string[];
  readonly value: unknown;
}

interface Overrides {
  readonly overrides: readonly Override[];
  readonly problems: readonly ConfigProblem[];
}

const byVariable: ReadonlyMap<string, ScalarKey> = new Map(scalarKeys.map((key) => [key.variable, key]));
const byPath: ReadonlyMap<string, ScalarKey> = new Map(scalarKeys.map((key) => [key.path.join('.'), key]));

/** Reads every `MESH_NODE_*` variable; one that is no key is a problem, because a typo must not go unnoticed. */
export function environmentOverrides(environment: Readonly<Record<string, string | undefined>>): Overrides {
  const overrides: Override[] = [];
  const problems: ConfigProblem[] = [];
  for (const [name, text] of Object.entries(environment)) {
    if (!name.startsWith(PREFIX) || name === CONFIG_VARIABLE || text === undefined) continue;
    const key = byVariable.get(name);
    if (key !== undefined) overrides.push({ origin: name, path: key.path, value: typed(key.schema, text) });
    else problems.push(unknown(name, name, 'the name of a setting', nearest(name, byVariable.keys())));
  }
  return { overrides, problems };
}

/** Reads flags of the form `capture.mode=all`; the last one wins where two set the same key. */
export function flagOverrides(flags: readonly string[]): Overrides {
  const overrides: Override[] = [];
  const problems: ConfigProblem[] = [];
  for (const flag of flags) {
    const at = flag.indexOf('=');
    const name = at === -1 ? flag : flag.slice(0, at);
    const key = byPath.get(name);
    const origin = `--set ${flag}`;
    if (at === -1) problems.push(unknown(origin, 'no value', 'KEY=VALUE'));
    else if (key !== undefined) {
      overrides.push({ origin, path: key.path, value: typed(key.schema, flag.slice(at + 1)) });
    } else
      problems.push(
        unknown(origin, name, 'the name of a setting with one value', nearest(name, byPath.keys())),
      );
  }
  return { overrides, problems };
}

function unknown(origin: string, found: string, expected: string, meant?: string): ConfigProblem {
  return {
    origin,
    path: '',
    found,
    expected,
    ...(meant === undefined ? {} : { hint: `did you mean ${meant}?` }),
  };
}

/** Text as the type that the schema asks for; what does not look like it stays text, and the schema refuses it. */
function typed(schema: JsonSchema, text: string): unknown {
  const types = (schema.anyOf ?? [schema]).map((one) => one.type);
  if (types.includes('integer') && /^-?\d{1,15}$/.test(text)) return Number(text);
  if (types.includes('boolean') && (text === 'true' || text === 'false')) return text === 'true';
  return text;
}

/** The value with the overrides in place. Sections that are something else than maps stay, for the schema to refuse. */
export function overlay(value: unknown, overrides: readonly Override[]): unknown {
  if (overrides.length === 0 || (value !== null && !isMap(value))) return value;
  const root: Record<string, unknown> = { ...value };
  for (const { path, value: leaf } of overrides) {
    let holder = root;
    for (const part of path.slice(0, -1)) {
      const child = Object.hasOwn(holder, part) ? holder[part] : null;
      if (child !== null && !isMap(child)) break;
      const copy: Record<string, unknown> = { ...child };
      holder[part] = copy;
      holder = copy;
    }
    if (holder !== root || path.length === 1) holder[path.at(-1)!] = leaf;
  }
  return root;
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
