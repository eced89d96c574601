import { z } from 'zod';
import type { JsonSchema } from '../../config/keys.ts';

/*
 * Short forms: what people write where the long form would say nothing more. The long form is the schema; the short one is
 * turned into it before it is checked.
 */

/** Unlike a map it knows a schema also once that has got a description. */
const shortForms = z.registry<{ readonly form: JsonSchema | 'item' }>();

/**
 * `long`, or whatever `lengthen` makes it of. `form` is the short one for editors (`item`: one entry of the list), `title` both
 * in words. `lengthen` leaves what it does not know as it is.
 */
export function withShortForm<T extends z.ZodType>(
  long: T,
  lengthen: (value: unknown) => unknown,
  form: JsonSchema | 'item',
  title: string,
) {
  const schema = z.preprocess(lengthen, long).meta({ title });
  shortForms.add(schema, { form });
  return schema;
}

/** Writes short forms into the JSON schema; for `override` of `z.toJSONSchema`. */
export function addShortForm({
  zodSchema,
  jsonSchema,
}: {
  readonly zodSchema: z.core.$ZodType;
  readonly jsonSchema: object;
}): void {
  const form = shortForms.get(zodSchema)?.form;
  if (form === undefined) return;
  const { title, description, default: fallback, ...long } = jsonSchema as Record<string, unknown>;
  for (const key of Object.keys(jsonSchema)) delete (jsonSchema as Record<string, unknown>)[key];
  Object.assign(jsonSchema, {
    ...(title === undefined ? {} : { title }),
    ...(description === undefined ? {} : { description }),
    ...(fallback === undefined ? {} : { default: fallback }),
    anyOf: [form === 'item' ? long['items'] : form, long],
  });
}

/** A list of at least one and at most so many; a single one may stand for itself. `what` one of them is, in words. */
export function oneOrMany<T extends z.ZodType>(item: T, most: number, what: string) {
  return withShortForm(
    z.array(item).min(1).max(most),
    (value) => (Array.isArray(value) ? value : [value]),
    'item',
    `${what}, or a list of such`,
  );
}

/** A section that is written without anything in it has its defaults. */
export function orDefaults<T extends z.ZodType>(section: T, title = 'map') {
  return withShortForm(section, (value) => (value === null ? {} : value), { type: 'null' }, title);
}

/** True when exactly one key is there; for `refine`. */
export function exactlyOne(value: object): boolean {
  return Object.keys(value).length === 1;
}

/** True when at least one key is there; for `refine`. */
export function somethingSaid(value: object): boolean {
  return Object.keys(value).length > 0;
}

/** Reports names that stand again in a list; for `superRefine`. */
export function namesOnce(
  list: readonly { readonly name: string }[],
  context: z.core.$RefinementCtx,
  path: readonly PropertyKey[] = [],
): void {
  const seen = new Set<string>();
  for (const [at, { name }] of list.entries()) {
    if (seen.has(name))
      context.addIssue({ code: 'custom', path: [...path, at, 'name'], message: 'expected each name once' });
    seen.add(name);
  }
}
