import { z } from 'zod';
import { policyLimits } from '../limits.ts';
import { withShortForm } from './forms.ts';

/*
 * Kinds of single values that policies are made of; those with a unit are the configuration's (config/units.ts).
 */

/** RFC 9110, 5.6.2. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VISIBLE = /^[^\p{Cc}\p{Zl}\p{Zp}]*$/u;

/** A name for people and metrics: of a route, a rate limit, an access rule. */
export const itemName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'expected a name: up to 63 letters, digits, - . and _')
  .meta({ title: 'name' });

/** A text that something is compared with. */
export const comparedText = z
  .string()
  .max(policyLimits.text, `expected at most ${policyLimits.text} characters`)
  .regex(VISIBLE, 'expected text without control characters')
  .meta({ title: 'text' });

/** Name of a header field, as it is written. */
export const writtenHeaderName = z
  .string()
  .max(128, 'expected at most 128 characters')
  .regex(TOKEN, 'expected the name of a header field')
  .meta({ title: 'header name' });

/** Name of a header field, in lower case from here on. */
export const headerName = writtenHeaderName.transform((name) => name.toLowerCase());

/** Name of a cookie (RFC 6265: a token). Upper and lower case differ. */
export const cookieName = z
  .string()
  .max(128, 'expected at most 128 characters')
  .regex(TOKEN, 'expected the name of a cookie')
  .meta({ title: 'cookie name' });

/** Methods are told apart by case, and all that are registered are in upper case: `get` is a slip. */
export const method = z
  .string()
  .regex(/^[A-Z][A-Z0-9_-]{0,31}$/, 'expected a method in upper case, such as GET')
  .meta({ title: 'method' });

/** A path to send on or to ask for. */
export const plainPath = z
  .string()
  .max(policyLimits.text, `expected at most ${policyLimits.text} characters`)
  .regex(/^\/[!$&'()*+,\-./0-9:;=@A-Z_a-z~%]*$/, 'expected a path that begins with /, without query')
  .meta({ title: 'path' });

/** A host to send on, with or without port. */
export const hostText = z
  .string()
  .regex(
    /^(?=.{1,255}$)(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?$/i,
    'expected a host name or address, with or without port',
  )
  .meta({ title: 'host' });

const SHARE = /^(\d{1,3}(?:\.\d{1,6})?)%$/;

/** A share in percent, with fractions: `10`, `0.5`, `10%`. */
export const share = withShortForm(
  z.number('expected a share from 0 to 100, such as 10 or 0.5%').min(0).max(100),
  (value) => {
    const text = typeof value === 'string' ? SHARE.exec(value)?.[1] : undefined;
    return text === undefined ? value : Number(text);
  },
  { type: 'string', pattern: SHARE.source },
  'share from 0 to 100 in percent',
);

/** A share in whole percent. */
export const wholeShare = (fallback: number) => z.int().min(0).max(100).default(fallback);

/** How many of something; at least one. */
export const count = (fallback: number, most = 1_000_000) => z.int().min(1).max(most).default(fallback);
