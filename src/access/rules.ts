import type { Access, AccessRule } from '../model/policy.ts';
import { type CallerMatcher, compileCallers } from '../policy/match/caller.ts';
import { pathReadings } from '../policy/match/path.ts';
import { compilePath } from '../policy/match/path-matcher.ts';
import type { CallerView } from '../policy/match/request-view.ts';
import type { TextMatcher } from '../policy/match/text.ts';

/** What becomes of it. `shadow-deny`: it would be denied, is let through and written down. */
export type AccessAction = 'allow' | 'deny' | 'shadow-deny';

export interface AccessDecision {
  readonly action: AccessAction;
  /** Name of the rule that decided; undefined: none did, and `otherwise` counts. */
  readonly rule: string | undefined;
}

/** Of a request, what rules speak of. */
export interface AccessRequest {
  readonly method: string;
  /** Path and query for an origin server, as it is sent to the instance. */
  readonly path: string;
}

interface CompiledRule {
  readonly isCaller: CallerMatcher;
  readonly ports: ReadonlySet<number> | undefined;
  readonly methods: ReadonlySet<string> | undefined;
  readonly paths: readonly TextMatcher[] | undefined;
  /** It speaks of requests. */
  readonly ofRequests: boolean;
  readonly denies: boolean;
  readonly decision: AccessDecision;
}

/** The rules of one service, compiled. The first that holds decides. */
export class AccessRules {
  readonly #rules: readonly CompiledRule[];
  readonly #otherwise: AccessDecision;

  constructor({ rules, otherwise, shadow }: Access) {
    const decision = (action: Access['otherwise'], rule: string | undefined): AccessDecision =>
      Object.freeze({ action: action === 'deny' && shadow ? 'shadow-deny' : action, rule });
    this.#rules = rules.map((rule) => compile(rule, decision(rule.action, rule.name)));
    this.#otherwise = decision(otherwise, undefined);
  }

  /**
   * Decides about a connection as a whole. `requests`: a rule that may hold speaks of requests, so each of them is to be
   * decided about. With `opaque` nobody will read them: then such a rule does not allow anything, and denies everything.
   * `port`: of the instance; where it is not known, a rule that names ports denies and does not allow.
   */
  connection(caller: CallerView, port: number | undefined, opaque: boolean): AccessDecision | 'requests' {
    for (const rule of this.#rules) {
      if (!speaksOf(rule, caller, port)) continue;
      if (!rule.ofRequests || (opaque && rule.denies)) return rule.decision;
      if (!opaque) return 'requests';
    }
    return this.#otherwise;
  }

  /** Decides about one request. */
  request(caller: CallerView, port: number | undefined, { method, path }: AccessRequest): AccessDecision {
    let readings: readonly string[] | undefined;
    let read = false;
    for (const rule of this.#rules) {
      if (!speaksOf(rule, caller, port)) continue;
      if (rule.methods?.has(method) === false) continue;
      if (rule.paths !== undefined) {
        if (!read) readings = pathReadings(withoutQuery(path));
        read = true;
        if (!meansPath(rule.paths, readings, rule.denies)) continue;
      }
      return rule.decision;
    }
    return this.#otherwise;
  }
}

function compile(rule: AccessRule, decision: AccessDecision): CompiledRule {
  const { callers, ports, methods, paths, action } = rule;
  return {
    isCaller: compileCallers(callers),
    ports: ports === undefined ? undefined : new Set(ports),
    methods: methods === undefined ? undefined : new Set(methods),
    paths: paths?.map(compilePath),
    ofRequests: methods !== undefined || paths !== undefined,
    denies: action === 'deny',
    decision,
  };
}

function speaksOf({ isCaller, ports, denies }: CompiledRule, caller: CallerView, port: number | undefined) {
  if (ports !== undefined && !(port === undefined ? denies : ports.has(port))) return false;
  return isCaller(caller);
}

/** Servers differ in how they read a path: one reading is enough to deny, to allow it takes all of them. */
function meansPath(
  paths: readonly TextMatcher[],
  readings: readonly string[] | undefined,
  denies: boolean,
): boolean {
  if (readings === undefined) return denies;
  const isMeant = (reading: string): boolean => paths.some((matches) => matches(reading));
  return denies ? readings.some(isMeant) : readings.every(isMeant);
}

function withoutQuery(path: string): string {
  const at = path.indexOf('?');
  return at < 0 ? path : path.slice(0, at);
}
