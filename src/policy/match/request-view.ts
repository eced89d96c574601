import type { StickyKey } from '../../model/policy.ts';
import type { NodeName, ServiceName } from '../../model/service.ts';
import { cookieOf, parameterOf } from './pairs.ts';
import { plainPath } from './path.ts';

/** Who calls, as far as it is known where the question comes up. */
export interface CallerView {
  /** The service that the caller speaks for. */
  readonly service: ServiceName | undefined;
  /** The program that calls, in one word (`callerText`): `unit:orders.service`, `container:…`, `user:…`, `unknown`. */
  readonly program: string | undefined;
  /** The host that it runs on. */
  readonly node: NodeName | undefined;
  /** Text of its IP address; tells callers apart of whom nothing else is known. */
  readonly address: string | undefined;
}

/** A request, as matchers see it. Everything is looked for when it is asked for. */
export interface RequestView {
  readonly method: string;
  /** Host and port that the caller asks for; empty where it names none. */
  readonly authority: string;
  /** Without the query, normalised ({@link plainPath}). */
  readonly path: string;
  /** Without the query, as it was sent: begins with `/`, or is `*`, or empty (CONNECT). */
  readonly rawPath: string;
  /** Behind the `?`, which is not part of it; empty: there is none. */
  readonly query: string;
  readonly caller: CallerView;
  /** All values of a field (lower case), joined; undefined: there is none. */
  header(name: string): string | undefined;
  cookie(name: string): string | undefined;
  parameter(name: string): string | undefined;
}

/** A request's head; of the codec's this much. */
interface Head {
  readonly method: string;
  /** Path and query for an origin server: begins with `/`, or is `*`; empty for CONNECT. */
  readonly path: string;
  readonly authority: string;
  readonly fields: { joined(name: string): string | undefined };
}

/** A request's head as matchers see it; cheap to make, and parsed no further than somebody asks. */
export class HeadView implements RequestView {
  readonly rawPath: string;
  readonly query: string;
  readonly caller: CallerView;
  readonly #head: Head;
  #path: string | undefined;

  constructor(head: Head, caller: CallerView) {
    const { path } = head;
    const at = path.indexOf('?');
    this.rawPath = at < 0 ? path : path.slice(0, at);
    this.query = at < 0 ? '' : path.slice(at + 1);
    this.caller = caller;
    this.#head = head;
  }

  get method(): string {
    return this.#head.method;
  }

  get authority(): string {
    return this.#head.authority;
  }

  get path(): string {
    this.#path ??= plainPath(this.rawPath);
    return this.#path;
  }

  header(name: string): string | undefined {
    return this.#head.fields.joined(name);
  }

  cookie(name: string): string | undefined {
    return cookieOf(this.#head.fields.joined('cookie'), name);
  }

  parameter(name: string): string | undefined {
    return parameterOf(this.query, name);
  }
}

/** What tells callers apart: the program, or where that is not known the address. */
export function callerKey({ program, address }: Pick<CallerView, 'program' | 'address'>): string | undefined {
  return program === undefined || program === 'unknown' ? address : program;
}

/** The text that a key means in this request; undefined where it does not carry one. */
export function stickyText(key: StickyKey, view: RequestView): string | undefined {
  switch (key.kind) {
    case 'header':
      return view.header(key.name);
    case 'cookie':
      return view.cookie(key.name);
    case 'caller':
      return callerKey(view.caller);
  }
}
