import { explain, type Finding } from './explain.ts';
import { jsonSchema } from './keys.ts';
import { type Config, configSchema } from './schema.ts';

/** Checks a plain value against the schema; either the complete configuration or everything that is wrong. */
export function validate(
  value: unknown,
): { readonly config: Config } | { readonly findings: readonly Finding[] } {
  const filled = fillEmptySections(value);
  const result = configSchema.safeParse(filled);
  if (!result.success)
    return { findings: result.error.issues.flatMap((issue) => explain(issue, filled, jsonSchema)) };
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

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const child of Object.values(value)) deepFreeze(child);
    Object.freeze(value);
  }
  return value;
}
