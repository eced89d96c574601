import type { Access, ServicePolicy } from '../model/policy.ts';
import type { Protocol, Service, ServiceName } from '../model/service.ts';
import type { CallerView } from '../policy/match/request-view.ts';
import { type AccessAction, type AccessDecision, type AccessRequest, AccessRules } from './rules.ts';

/** Protocols whose requests are read where rules speak of them; with `auto` the rules themselves say that it is HTTP. */
const READ: ReadonlySet<Protocol> = new Set(['http', 'auto']);

export interface AccessDependencies {
  /** What operators say of a service, as of now. */
  policy(service: ServiceName): ServicePolicy;
  /** A decision that counts was made, about a connection or about a request. */
  decided(service: ServiceName, action: AccessAction): void;
}

/** A decision, and what people are told of it. */
export interface Verdict extends AccessDecision {
  /** Why not; undefined where it is allowed, without more. */
  readonly denial: string | undefined;
}

/** Decides who may call the instances of this host. */
export class AccessControl {
  readonly #deps: AccessDependencies;

  constructor(dependencies: AccessDependencies) {
    this.#deps = dependencies;
  }

  /**
   * Decides about a connection; `requests`: each of its requests is to be decided about. Undefined: the service has no
   * rules.
   */
  connection(
    service: Service,
    port: number | undefined,
    caller: CallerView,
  ): Verdict | 'requests' | undefined {
    const verdict = this.preview(service, port, caller);
    if (verdict !== undefined && verdict !== 'requests') this.count(service.name, verdict);
    return verdict;
  }

  /** The same, without being counted. */
  preview(
    service: Pick<Service, 'name' | 'protocol'>,
    port: number | undefined,
    caller: CallerView,
  ): Verdict | 'requests' | undefined {
    const { access } = this.#deps.policy(service.name);
    if (access === undefined) return undefined;
    const decision = rulesOf(access).connection(caller, port, !READ.has(service.protocol));
    return decision === 'requests' ? decision : verdictOf(decision, service.name, caller, undefined);
  }

  /** Decides about one request. Undefined: the service has no rules. */
  request(
    service: ServiceName,
    port: number | undefined,
    caller: CallerView,
    request: AccessRequest,
  ): Verdict | undefined {
    const verdict = this.previewRequest(service, port, caller, request);
    if (verdict !== undefined) this.count(service, verdict);
    return verdict;
  }

  /** Counts a decision that was made without being counted. */
  count(service: ServiceName, { action }: AccessDecision): void {
    this.#deps.decided(service, action);
  }

  /** The same, without being counted. */
  previewRequest(
    service: ServiceName,
    port: number | undefined,
    caller: CallerView,
    request: AccessRequest,
  ): Verdict | undefined {
    const { access } = this.#deps.policy(service);
    if (access === undefined) return undefined;
    return verdictOf(rulesOf(access).request(caller, port, request), service, caller, request);
  }
}

/** Compiled once for each section of each policy. */
const compiled = new WeakMap<Access, AccessRules>();

function rulesOf(access: Access): AccessRules {
  const known = compiled.get(access);
  if (known !== undefined) return known;
  const rules = new AccessRules(access);
  compiled.set(access, rules);
  return rules;
}

/** Verdicts that allow, made once: most are. */
const allowed = new WeakMap<AccessDecision, Verdict>();

function verdictOf(
  decision: AccessDecision,
  service: ServiceName,
  caller: CallerView,
  request: AccessRequest | undefined,
): Verdict {
  if (decision.action !== 'allow') {
    return { ...decision, denial: denialText(decision, service, caller, request) };
  }
  const known = allowed.get(decision);
  if (known !== undefined) return known;
  const verdict = { ...decision, denial: undefined };
  allowed.set(decision, verdict);
  return verdict;
}

/** One sentence that names the rule; it is told to the caller, too. */
function denialText(
  { rule }: AccessDecision,
  service: ServiceName,
  caller: CallerView,
  request: AccessRequest | undefined,
): string {
  const what = request === undefined ? service : `${request.method} of this path of ${service}`;
  const who = callerWords(caller);
  return rule === undefined
    ? `no access rule of ${service} lets ${who} call ${what}`
    : `access rule ${rule} of ${service} does not let ${who} call ${what}`;
}

/** `unit:front.service on web1 as shop`. */
function callerWords({ program, node, service }: CallerView): string {
  const as = service === undefined ? '' : ` as ${service}`;
  const on = node === undefined ? '' : ` on ${node}`;
  return `${program === undefined || program === 'unknown' ? 'an unknown program' : program}${on}${as}`;
}
