import { isAuthority } from './authority.ts';
import { equalsIgnoringCase } from './characters.ts';
import { HttpRefusal } from './refusal.ts';

/** The four forms of RFC 9112, 3.2. */
export type TargetForm = 'origin' | 'absolute' | 'authority' | 'asterisk';

/** A request target, taken apart. */
export interface Target {
  readonly form: TargetForm;
  /** Path and query as an origin server gets them: begins with `/`, or is `*`; empty for CONNECT. */
  readonly path: string;
  /** Host and port that the target itself names: absolute-form and authority-form. */
  readonly authority: string | undefined;
  /** Scheme of an absolute-form. */
  readonly scheme: 'http' | 'https' | undefined;
}

const ASTERISK: Target = { form: 'asterisk', path: '*', authority: undefined, scheme: undefined };

/** Reads a target of TARGET characters, not empty. Throws where its form is not the one of this method. */
export function parseTarget(method: string, target: string): Target {
  const first = target.charCodeAt(0);
  if (method === 'CONNECT') {
    if (!isAuthority(target, 0, target.length, true)) throw invalid();
    return { form: 'authority', path: '', authority: target, scheme: undefined };
  }
  if (first === 0x2f) return { form: 'origin', path: target, authority: undefined, scheme: undefined };
  if (target === '*') {
    if (method !== 'OPTIONS') throw invalid();
    return ASTERISK;
  }
  const scheme = equalsIgnoringCase(target, 0, 7, 'http://')
    ? 'http'
    : equalsIgnoringCase(target, 0, 8, 'https://')
      ? 'https'
      : undefined;
  if (scheme === undefined) throw invalid();
  const from = scheme.length + 3;
  let to = from;
  while (to < target.length && target[to] !== '/' && target[to] !== '?') to++;
  if (!isAuthority(target, from, to, false)) throw invalid();
  return { form: 'absolute', path: pathOf(method, target, to), authority: target.slice(from, to), scheme };
}

/** RFC 9112, 3.2.1 and 3.2.4: an empty path is `/`, or `*` for OPTIONS without a query. */
function pathOf(method: string, target: string, from: number): string {
  if (from === target.length) return method === 'OPTIONS' ? '*' : '/';
  return target[from] === '?' ? `/${target.slice(from)}` : target.slice(from);
}

function invalid(): HttpRefusal {
  return new HttpRefusal('request', 'target-invalid');
}
