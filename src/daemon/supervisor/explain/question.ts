import type { ExplainQuestion } from '../../../admin/api.ts';
import { type Endpoint, type Ip, parseEndpoint, parseIp } from '../../../model/address.ts';
import { MeshError } from '../../../model/errors.ts';
import type { NodeName, ServiceName } from '../../../model/service.ts';
import { type CallerView, HeadView } from '../../../policy/match/request-view.ts';

/** Fields of a request that somebody asks about. */
const MAX_FIELDS = 100;
/** Where URLs lead that name no port. */
const USUAL_PORTS: Readonly<Record<string, number>> = { 'http:': 80, 'ws:': 80, 'https:': 443, 'wss:': 443 };

/** What somebody asks about: where a connection or request goes, and whose it is. */
export interface Asked {
  readonly to:
    | { readonly host: string; readonly port: number | undefined; readonly usual: number }
    | Endpoint;
  /** Undefined: a connection, of which nothing is read. */
  readonly request: HeadView | undefined;
  readonly caller: CallerView;
}

/** Reads a question; throws a MeshError of source `caller` that says what was expected. */
export function askedOf(question: ExplainQuestion, node: NodeName, callAs: ServiceName | undefined): Asked {
  const { to } = question;
  const caller: CallerView = {
    service: (question.service as ServiceName | undefined) ?? callAs,
    program: programOf(question.from),
    node: (question.node as NodeName | undefined) ?? node,
    address: undefined,
  };
  const endpoint = parseEndpoint(to);
  if (endpoint !== undefined) return { to: endpoint, request: undefined, caller };
  if (to.includes('://')) return askedUrl(question, caller);
  const named = /^([^\s/:]+)(?::(\d{1,5}))?$/.exec(to);
  if (named === null) throw refused(`${to} is neither a URL, nor ADDRESS:PORT, nor the name of a service`);
  const port = named[2] === undefined ? undefined : portOf(named[2]);
  return { to: { host: named[1]!, port, usual: 80 }, request: undefined, caller };
}

function askedUrl({ to, method = 'GET', headers }: ExplainQuestion, caller: CallerView): Asked {
  if (!URL.canParse(to)) throw refused(`${to} is not a URL`);
  const url = new URL(to);
  const usual = USUAL_PORTS[url.protocol];
  if (usual === undefined) throw refused(`${url.protocol}// is not known: http, https, ws or wss`);
  const port = url.port === '' ? undefined : portOf(url.port);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const ip = parseIp(host);
  const place: Asked['to'] = ip === undefined ? { host, port, usual } : { ip: ip as Ip, port: port ?? usual };
  // What is behind TLS is not read here.
  if (usual === 443) return { to: place, request: undefined, caller };
  const fields = fieldsOf(headers);
  const head = {
    method: method.toUpperCase(),
    path: url.pathname + url.search,
    authority: fields.get('host') ?? url.host,
    fields: { joined: (name: string) => fields.get(name) },
  };
  return { to: place, request: new HeadView(head, caller), caller };
}

/** `name: value`, one in a line; repeated ones are joined. */
function fieldsOf(headers: string | undefined): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  const lines = headers === undefined ? [] : headers.split('\n');
  if (lines.length > MAX_FIELDS) throw refused(`more than ${MAX_FIELDS} headers`);
  for (const line of lines) {
    const found = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/.exec(line);
    if (found === null) throw refused(`${line} is not NAME: VALUE`);
    const name = found[1]!.toLowerCase();
    const before = fields.get(name);
    fields.set(name, before === undefined ? found[2]! : `${before}, ${found[2]!}`);
  }
  return fields;
}

/** `orders` and `orders.service` are units; `user:…` and `container:…` say what they are. */
function programOf(from: string | undefined): string | undefined {
  if (from === undefined || from.includes(':')) return from;
  return `unit:${from.includes('.') ? from : `${from}.service`}`;
}

function portOf(text: string): number {
  const port = Number(text);
  if (port < 1 || port > 65_535) throw refused(`${text} is no port`);
  return port;
}

function refused(message: string): MeshError {
  return new MeshError('configuration', 'caller', message);
}
