import type { CallerPattern } from '../../model/policy.ts';
import type { CallerView } from './request-view.ts';

/** Says whether a caller is one of those that are meant. */
export type CallerMatcher = (caller: CallerView) => boolean;

/** Characters of a container's id that callers are known by (`Caller.container`). */
const CONTAINER_ID = 12;

const KINDS = ['service', 'unit', 'user', 'container', 'node'] as const;
type Kind = (typeof KINDS)[number];

/** Endings of systemd units (systemd.unit(5)); without one of them `.service` is meant, as with systemctl. */
const UNIT_TYPE = /\.(?:service|scope|slice|socket|timer|path|mount|automount|swap|target|device)$/;

/** What may match at all: a rule that denies `service:Shop` would let everybody through. */
const NAME = {
  form: /^[a-z0-9.-]*\*?$/,
  words: 'has a name with other than lower-case letters, digits, - and .',
};
const ANY = { form: /./, words: '' };
const FORMS: Readonly<Record<Kind, { readonly form: RegExp; readonly words: string }>> = {
  service: NAME,
  node: NAME,
  container: { form: /^[0-9a-f]*\*?$/, words: 'has an id that is not lower-case hexadecimal' },
  unit: ANY,
  user: ANY,
};

/** Why this is no {@link CallerPattern}, in words; undefined when it is one. */
export function callerPatternProblem(pattern: CallerPattern): string | undefined {
  if (pattern === '*') return undefined;
  const { kind, name } = split(pattern);
  if (!KINDS.some((known) => known === kind)) {
    return `begins with none of ${KINDS.map((known) => `${known}:`).join(', ')}, and is not *`;
  }
  if (!/^[\x21-\x7e]+$/.test(name)) return `has no name behind ${kind}:`;
  if (name.slice(0, -1).includes('*')) return 'has a * before its end';
  const { form, words } = FORMS[kind as Kind];
  return form.test(name) ? undefined : words;
}

/** A caller as people name one. */
interface NamedCaller {
  readonly program: string | undefined;
  readonly service: string | undefined;
  readonly node: string | undefined;
}

/** Who is meant by a pattern that means one caller, or by `unknown`; undefined where that is nobody. */
export function callerNamed(text: string): NamedCaller | undefined {
  const nobody: NamedCaller = { program: undefined, service: undefined, node: undefined };
  if (text === 'unknown') return { ...nobody, program: text };
  if (text.includes('*') || callerPatternProblem(text) !== undefined) return undefined;
  const { kind, name } = split(text) as { kind: Kind; name: string };
  if (kind === 'service' || kind === 'node') return { ...nobody, [kind]: name };
  return { ...nobody, program: programOf(kind, name) };
}

/** Its text (`callerText`): units by their full name, containers by the beginning of their id. */
function programOf(kind: 'unit' | 'user' | 'container', name: string): string {
  if (kind === 'unit' && !UNIT_TYPE.test(name)) return `unit:${name}.service`;
  return `${kind}:${kind === 'container' ? name.slice(0, CONTAINER_ID) : name}`;
}

/** Compiles patterns: one of them has to hold. Those that {@link callerPatternProblem} speaks against never do. */
export function compileCallers(patterns: readonly CallerPattern[]): CallerMatcher {
  const matchers = patterns.map(compilePattern);
  const [only] = matchers;
  return matchers.length === 1 ? only! : (caller) => matchers.some((matches) => matches(caller));
}

function compilePattern(pattern: CallerPattern): CallerMatcher {
  if (pattern === '*') return () => true;
  if (callerPatternProblem(pattern) !== undefined) return () => false;
  const { kind, name } = split(pattern) as { kind: Kind; name: string };
  const text = textOf(kind);
  const wanted = kind === 'service' || kind === 'node' ? name : pattern;
  if (wanted.endsWith('*')) {
    const start =
      kind === 'container' ? `container:${name.slice(0, -1).slice(0, CONTAINER_ID)}` : wanted.slice(0, -1);
    return (caller) => text(caller)?.startsWith(start) === true;
  }
  const whole = kind === 'service' || kind === 'node' ? name : programOf(kind, name);
  return (caller) => text(caller) === whole;
}

function textOf(kind: Kind): (caller: CallerView) => string | undefined {
  switch (kind) {
    case 'service':
      return (caller) => caller.service;
    case 'node':
      return (caller) => caller.node;
    default:
      return (caller) => caller.program;
  }
}

function split(pattern: CallerPattern): { readonly kind: string; readonly name: string } {
  const at = pattern.indexOf(':');
  return at < 0 ? { kind: pattern, name: '' } : { kind: pattern.slice(0, at), name: pattern.slice(at + 1) };
}
