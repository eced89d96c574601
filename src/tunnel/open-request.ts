import { Packr, Unpackr } from 'msgpackr';
import { type ClientAddress, endpointKey, parseEndpoint } from '../model/address.ts';
import { parseCallerText } from '../model/caller.ts';
import {
  type InstanceId,
  type NodeName,
  parseInstanceId,
  parseNodeName,
  parseServiceName,
  type ServiceName,
} from '../model/service.ts';
import { MAX_CONTROL_BODY, protocolError } from './frame.ts';

interface OpenCommon {
  readonly service: ServiceName;
  /** Service that the caller speaks for; believed only as far as its certificate goes. */
  readonly callerService?: ServiceName;
  /** The program that called, as its host's kernel says ({@link parseCallerText}); believed as far as its node is. */
  readonly callerProgram?: string;
  /** Where the caller's connection comes from. Never dialled; shown to services that ask for it. */
  readonly callerAddress?: ClientAddress;
  /** W3C `traceparent`. */
  readonly trace?: string;
  /** Milliseconds that the caller still waits. */
  readonly deadline?: number;
}

/** Asks the peer for a stream to an instance that it hosts itself. */
export interface ServiceOpen extends OpenCommon {
  readonly kind: 'service';
  readonly instance: InstanceId;
}

/** Asks a zone-agent for a byte stream to another node's acceptor, over which an ordinary session then runs. */
export interface RelayOpen extends OpenCommon {
  readonly kind: 'relay';
  readonly instance?: InstanceId;
  readonly zone: string;
  readonly node: NodeName;
  /** Relays that may still follow. */
  readonly hops: number;
  /** Nodes passed so far, to find loops. */
  readonly via: readonly NodeName[];
}

/** What an OPEN frame asks for. It never carries an address. */
export type OpenRequest = ServiceOpen | RelayOpen;

const MAX_DEPTH = 4;
const MAX_TRACE = 256;
const MAX_HOPS = 255;
const MAX_VIA = 16;

const packr = new Packr({ useRecords: false, variableMapSize: true });
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true });

/** Body of an OPEN frame. Throws a RangeError when the request is too long to be sent. */
export function encodeOpen(open: OpenRequest): Buffer {
  const body: Record<string, unknown> = { k: open.kind, s: open.service };
  if (open.instance !== undefined) body['i'] = open.instance;
  if (open.callerService !== undefined) body['c'] = open.callerService;
  if (open.callerProgram !== undefined) body['p'] = open.callerProgram;
  if (open.callerAddress !== undefined) body['a'] = endpointKey(open.callerAddress);
  if (open.trace !== undefined) body['t'] = open.trace;
  if (open.deadline !== undefined) body['d'] = Math.max(0, Math.min(0xffffffff, Math.round(open.deadline)));
  if (open.kind === 'relay') {
    body['z'] = open.zone;
    body['n'] = open.node;
    body['h'] = open.hops;
    body['v'] = open.via;
  }
  const bytes = packr.pack(body);
  if (bytes.length > MAX_CONTROL_BODY) throw new RangeError(`OPEN of ${bytes.length} bytes`);
  return bytes;
}

/** Length in bytes of the big-endian unsigned number at `at`. */
function count(body: Buffer, at: number, size: 1 | 2 | 4): number {
  if (at + size > body.length) throw protocolError('OPEN is cut short');
  return body.readUIntBE(at, size);
}

/**
 * Walks one msgpack value without decoding it and returns its end. Only the types of docs/tunnel.md pass: msgpackr's
 * extensions (records, regular expressions, classes, …) never see a peer's bytes.
 */
function scan(body: Buffer, at: number, depth: number): number {
  if (depth > MAX_DEPTH) throw protocolError('OPEN is nested too deep');
  const type = body[at];
  if (type === undefined) throw protocolError('OPEN is cut short');
  if (type <= 0x7f || type === 0xc0 || type === 0xc2 || type === 0xc3) return at + 1;
  if (type <= 0x8f) return scanMany(body, at + 1, (type & 0x0f) * 2, depth);
  if (type <= 0x9f) return scanMany(body, at + 1, type & 0x0f, depth);
  if (type <= 0xbf) return scanBytes(body, at + 1 + (type & 0x1f));
  switch (type) {
    case 0xcc:
      return scanBytes(body, at + 2);
    case 0xcd:
      return scanBytes(body, at + 3);
    case 0xce:
      return scanBytes(body, at + 5);
    case 0xd9:
      return scanBytes(body, at + 2 + count(body, at + 1, 1));
    case 0xda:
      return scanBytes(body, at + 3 + count(body, at + 1, 2));
    case 0xdc:
      return scanMany(body, at + 3, count(body, at + 1, 2), depth);
    case 0xde:
      return scanMany(body, at + 3, count(body, at + 1, 2) * 2, depth);
    default:
      throw protocolError(`OPEN with msgpack type 0x${type.toString(16)}`);
  }
}

function scanBytes(body: Buffer, end: number): number {
  if (end > body.length) throw protocolError('OPEN is cut short');
  return end;
}

function scanMany(body: Buffer, from: number, values: number, depth: number): number {
  if (values > body.length - from) throw protocolError('OPEN is cut short');
  let at = from;
  for (let i = 0; i < values; i++) at = scan(body, at, depth + 1);
  return at;
}

function required<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw protocolError(`OPEN without a valid ${what}`);
  return value;
}

function text<T extends string>(
  value: unknown,
  parse: (text: string) => T | undefined,
  what: string,
): T | undefined {
  if (value === undefined) return undefined;
  return required(typeof value === 'string' ? parse(value) : undefined, what);
}

function unsigned(value: unknown, max: number, what: string): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > max) {
    throw protocolError(`OPEN without a valid ${what}`);
  }
  return value;
}

const parseClientAddress = (value: unknown) =>
  typeof value === 'string' ? (parseEndpoint(value) as ClientAddress | undefined) : undefined;

const parseTrace = (value: string) =>
  value.length <= MAX_TRACE && /^[\x21-\x7e]*$/.test(value) ? value : undefined;

/** Reads and checks the body of an OPEN frame; throws a `protocol` MeshError. */
export function decodeOpen(body: Buffer): OpenRequest {
  const first = body[0] ?? 0;
  if ((first & 0xf0) !== 0x80 && first !== 0xde) throw protocolError('OPEN is not a map');
  if (scan(body, 0, 0) !== body.length) throw protocolError('OPEN with bytes after its map');
  let map: Record<string, unknown>;
  try {
    map = unpackr.unpack(body) as Record<string, unknown>;
  } catch (cause) {
    throw protocolError(`OPEN cannot be read: ${String(cause)}`);
  }
  const instance = text(map['i'], parseInstanceId, 'instance');
  const callerService = text(map['c'], parseServiceName, 'caller');
  const callerProgram = text(map['p'], parseCallerText, 'caller program');
  const callerAddress =
    map['a'] === undefined ? undefined : required(parseClientAddress(map['a']), 'caller address');
  const trace = text(map['t'], parseTrace, 'trace');
  const deadline = unsigned(map['d'], 0xffffffff, 'deadline');
  const common = {
    service: required(text(map['s'], parseServiceName, 'service'), 'service'),
    ...(callerService === undefined ? {} : { callerService }),
    ...(callerProgram === undefined ? {} : { callerProgram }),
    ...(callerAddress === undefined ? {} : { callerAddress }),
    ...(trace === undefined ? {} : { trace }),
    ...(deadline === undefined ? {} : { deadline }),
  };
  if (map['k'] === 'service') {
    return { kind: 'service', ...common, instance: required(instance, 'instance') };
  }
  if (map['k'] !== 'relay') throw protocolError('OPEN of an unknown kind');
  const via = map['v'];
  if (!Array.isArray(via) || via.length > MAX_VIA) throw protocolError('OPEN without a valid via');
  return {
    kind: 'relay',
    ...common,
    ...(instance === undefined ? {} : { instance }),
    zone: required(text(map['z'], parseNodeName, 'zone'), 'zone'),
    node: required(text(map['n'], parseNodeName, 'node'), 'node'),
    hops: required(unsigned(map['h'], MAX_HOPS, 'hops'), 'hops'),
    via: via.map((node: unknown) => required(text(node, parseNodeName, 'via'), 'via')),
  };
}
