import type { NodeName } from '../model/service.ts';
import { parseNodeName } from '../model/service.ts';
import { registryLimits } from './limits.ts';

/*
 * What a member of a serverset says of itself (Twitter commons, `ServerSet`, its JSON form): no I/O, every part bounded.
 */

/** Most bytes of one member; real ones have a few hundred. */
export const MAX_MEMBER_BYTES = 64 * 1024;
/** The longest name of a host (RFC 1035), or address. */
const MAX_HOST = 253;
/** Longest text of a stranger that a report repeats. */
const MAX_SHOWN = 80;

export const memberStates = ['DEAD', 'STARTING', 'ALIVE', 'STOPPING', 'STOPPED', 'WARNING'] as const;

interface MemberEndpoint {
  /** An address, or a name that has to be resolved. */
  readonly host: string;
  readonly port: number;
}

/** A member, as far as instances are made of it. */
export interface ServersetMember {
  /** Only `ALIVE` members count. */
  readonly alive: boolean;
  /** Those that were asked for and are there; the main one is called ''. */
  readonly endpoints: ReadonlyMap<string, MemberEndpoint>;
  readonly node: NodeName | undefined;
  readonly zone: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  /** What is wrong and costs less than the member. */
  readonly problems: readonly string[];
}

/** What is wrong with a member as a whole; it then counts as none. */
export class MemberError extends Error {
  override readonly name = 'MemberError';
}

/**
 * Reads the data of a `member_` node. `wanted` are the endpoints that somebody looks at, '' for the service's own.
 * Throws a MemberError.
 */
export function parseMember(bytes: Uint8Array, wanted: ReadonlySet<string>): ServersetMember {
  if (bytes.length > MAX_MEMBER_BYTES) {
    throw new MemberError(`found ${bytes.length} bytes; at most ${MAX_MEMBER_BYTES} are read`);
  }
  const member = objectOf(parseJson(bytes));
  if (member === undefined) throw new MemberError('expected a JSON object');
  const status = field(member, 'status');
  if (typeof status !== 'string' || !memberStates.some((state) => state === status)) {
    throw new MemberError(`status: found ${show(status)}; expected one of ${memberStates.join(', ')}`);
  }
  const problems: string[] = [];
  const endpoints = new Map<string, MemberEndpoint>();
  if (wanted.has('')) endpoints.set('', readEndpoint(field(member, 'serviceEndpoint'), 'serviceEndpoint'));
  const additional = objectOf(field(member, 'additionalEndpoints'));
  for (const name of wanted) {
    const value = additional === undefined || name === '' ? undefined : field(additional, name);
    if (value !== undefined) endpoints.set(name, readEndpoint(value, `additionalEndpoints.${name}`));
  }
  const metadata = objectOf(field(member, 'metadata')) ?? {};
  return {
    alive: status === 'ALIVE',
    endpoints,
    node: readName(metadata, 'node', problems),
    zone: readName(metadata, 'zone', problems),
    labels: readLabels(field(member, 'shard'), metadata, problems),
    problems,
  };
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as unknown;
  } catch {
    throw new MemberError(bytes.length === 0 ? 'it is empty' : 'it is not JSON');
  }
}

function readEndpoint(value: unknown, what: string): MemberEndpoint {
  const endpoint = objectOf(value);
  const host = endpoint === undefined ? undefined : field(endpoint, 'host');
  const port = endpoint === undefined ? undefined : field(endpoint, 'port');
  // No space and nothing that a terminal or resolver would take for more than a name.
  if (typeof host !== 'string' || host.length > MAX_HOST || !/^[0-9A-Za-z._:-]+$/.test(host)) {
    throw new MemberError(`${what}.host: found ${show(host)}; expected an address or a name`);
  }
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65535) {
    throw new MemberError(`${what}.port: found ${show(port)}; expected 1 to 65535`);
  }
  return { host, port };
}

function readName(metadata: object, key: string, problems: string[]): NodeName | undefined {
  const value = field(metadata, key);
  if (value === undefined) return undefined;
  const name = typeof value === 'string' ? parseNodeName(value) : undefined;
  if (name === undefined) problems.push(`metadata.${key}: found ${show(value)}; expected a ${key} name`);
  return name;
}

function readLabels(shard: unknown, metadata: object, problems: string[]): Readonly<Record<string, string>> {
  const labels: [string, string][] = [];
  if (typeof shard === 'number' && Number.isInteger(shard)) labels.push(['shard', String(shard)]);
  for (const [key, value] of Object.entries(metadata)) {
    if (key === 'node' || key === 'zone' || key === 'shard') continue;
    const { labelKey, labelValue } = registryLimits;
    const fits =
      typeof value === 'string' && key !== '' && key.length <= labelKey && value.length <= labelValue;
    if (fits && labels.length < registryLimits.labels) labels.push([key, value]);
    else if (problems.length < 4) problems.push(`metadata ${show(key)} is no text, too long or too many`);
  }
  // Not by assignment: a label may be called __proto__.
  return Object.fromEntries(labels.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function objectOf(value: unknown): object | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined;
}

/** Own fields only: a member must not say `constructor`. */
function field(value: object, key: string): unknown {
  return Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined;
}

/** A value of a stranger as it may stand in a log. */
function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'object') return value === null ? 'null' : 'an object or a list';
  const text = String(value);
  return JSON.stringify(text.length <= MAX_SHOWN ? text : `${text.slice(0, MAX_SHOWN)}…`);
}
