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

/** Where header fields are looked up; of the codec's `Fields` this much. */
interface HeaderFields {
  joined(name: string): string | undefined;
}

/** A request's head as matchers see it; cheap to make, and parsed no further than somebody asks. */
export class HeadView implements RequestView {
  readonly method: string;
  readonly rawPath: string;
  readonly query: string;
  readonly caller: CallerView;
  readonly #fields: HeaderFields;
  #path: string | undefined;

  /** `target`: path and query for an origin server, as in the codec's `RequestHead.path`. */
  constructor(method: string, target: string, fields: HeaderFields, caller: CallerView) {
    const at = target.indexOf('?');
    this.method = method;
    this.rawPath = at < 0 ? target : target.slice(0, at);
    this.query = at < 0 ? '' : target.slice(at + 1);
    this.caller = caller;
    this.#fields = fields;
  }

  get path(): string {
    this.#path ??= plainPath(this.rawPath);
    return this.#path;
  }

  header(name: string): string | undefined {
    return this.#fields.joined(name);
  }

  cookie(name: string): string | undefined {
    return cookieOf(this.#fields.joined('cookie'), name);
  }

  parameter(name: string): string | undefined {
    return parameterOf(this.query, name);
  }
}

/** The text that a key means in this request; undefined where it does not carry one. */
export function stickyText(key: StickyKey, view: RequestView): string | undefined {
  switch (key.kind) {
    case 'header':
      return view.header(key.name);
    case 'cookie':
      return view.cookie(key.name);
    case 'caller': {
      const { program, address } = view.caller;
      return program === undefined || program === 'unknown' ? address : program;
    }
  }
}
