import type { ExplainQuestion } from '../../../admin/api.ts';
import { type Endpoint, type Ip, parseEndpoint, parseIp } from '../../../model/address.ts';
import { MeshError } from '../../../model/errors.ts';
import { type NodeName, parseNodeName, parseServiceName, type ServiceName } from '../../../model/service.ts';
import { callerNamed } from '../../../policy/match/caller.ts';
import { type CallerView, HeadView } from '../../../policy/match/request-view.ts';

/** Fields of a request that somebody asks about. */
const MAX_FIELDS = 100;
/** Where URLs lead that name no port. */
const USUAL_PORTS: Readonly<Record<string, number>> = { 'http:': 80, 'ws:': 80, 'https:': 443, 'wss:': 443 };

/** RFC 9110, 5.6.2 and 5.5. */
const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\uffff]*$/;

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
  const caller = callerOf(question, node, callAs);
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
    path: targetOf(to, url),
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
    const colon = line.indexOf(':');
    const name = line.slice(0, Math.max(0, colon)).toLowerCase();
    const value = line.slice(colon + 1);
    if (!FIELD_NAME.test(name) || !FIELD_VALUE.test(value)) throw refused(`${line} is not NAME: VALUE`);
    const before = fields.get(name);
    fields.set(name, before === undefined ? value.trim() : `${before}, ${value.trim()}`);
  }
  return fields;
}

/**
 * Path and query as they stand in the URL: they are sent as they are written, and a parsed URL has lost `..` and `\\`. What
 * no client can send is taken as the URL has it.
 */
function targetOf(text: string, url: URL): string {
  const written = /^[a-z]+:\/\/[^/?#\\]*(\/[^#]*)/i.exec(text)?.[1];
  return written !== undefined && /^[\x21-\x7e]+$/.test(written) ? written : url.pathname + url.search;
}

function callerOf(
  { from, service, node }: ExplainQuestion,
  here: NodeName,
  callAs: ServiceName | undefined,
): CallerView {
  // A name without more is a unit.
  const named =
    from === undefined
      ? undefined
      : callerNamed(from === 'unknown' || from.includes(':') ? from : `unit:${from}`);
  if (from !== undefined && named === undefined)
    throw refused(
      `${from} is not a unit, unit:NAME, user:NAME, container:ID, service:NAME, node:NAME or unknown`,
    );
  const speaksFor = service ?? named?.service;
  const on = node ?? named?.node;
  const serviceName = speaksFor === undefined ? callAs : parseServiceName(speaksFor);
  if (speaksFor !== undefined && serviceName === undefined)
    throw refused(`${speaksFor} is not a service name`);
  const nodeName = on === undefined ? here : parseNodeName(on);
  if (nodeName === undefined) throw refused(`${on} is not the name of a node`);
  return { program: named?.program, service: serviceName, node: nodeName, address: undefined };
}

function portOf(text: string): number {
  const port = Number(text);
  if (port < 1 || port > 65_535) throw refused(`${text} is no port`);
  return port;
}

function refused(message: string): MeshError {
  return new MeshError('configuration', 'caller', message);
}
